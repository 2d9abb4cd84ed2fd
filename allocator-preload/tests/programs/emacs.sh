#!/usr/bin/env bash
# Emacs: Lisp that is read and compiled, buffers, markers, regular expressions, tables, JSON, text that is sorted and undone.
# packages: emacs-nox
# program: emacs.*
set -euo pipefail
n=20000
[ "${1:-}" != brief ] || n=100
cat >program.el <<'EOF'
;;; -*- lexical-binding: t -*-
(require 'cl-lib)
(require 'json)
(defun program (n)
  (let ((table (make-hash-table :test 'equal)) (x 1) (sum 0))
    (dotimes (_ n)
      (setq x (mod (* x 16807) 2147483647))
      (push x (gethash (format "key%d" (mod x 997)) table)))
    (maphash (lambda (k v) (setq sum (mod (+ sum (* (length v) (length k)) (apply #'max v)) 1000003))) table)
    (message "table %d %d" (hash-table-count table) sum))
  (with-temp-buffer
    (buffer-enable-undo)
    (let ((x 1))
      (dotimes (_ n) (setq x (mod (* x 16807) 2147483647)) (insert (format "%d word%d ärger\n" x (mod x 89)))))
    (message "written %s" (md5 (buffer-string)))
    (sort-lines nil (point-min) (point-max))
    (message "sorted %s" (md5 (buffer-string)))
    (undo-boundary)
    (goto-char (point-min))
    (while (re-search-forward "word\\([0-9]\\)\\([0-9]\\)" nil t) (replace-match "\\2-\\1"))
    (message "replaced %s" (md5 (buffer-string)))
    (undo-boundary)
    (setq last-command nil)
    (undo)
    (message "undone %s" (md5 (buffer-string)))
    (let ((markers (cl-loop for i below 200 collect (copy-marker (1+ (mod (* i 7919) (point-max)))))))
      (goto-char (point-min)) (insert (make-string 1000 ?a))
      (message "markers %d" (apply #'+ (mapcar #'marker-position markers)))))
  (let* ((object (cl-loop for i below (/ n 10) collect `((k . ,i) (name . ,(format "n%d" (mod (* i 31) 101))) (list . [1 2 "drei"]))))
         (text (json-encode (vconcat object))))
    (message "json %s %d" (md5 text) (length (json-parse-string text :object-type 'alist))))
  (message "sorted list %d" (nth 10 (sort (cl-loop for i below n collect (mod (* i 7919) 10007)) #'<)))
  (message "number %s" (md5 (number-to-string (cl-loop with b = 1 for i from 2 to 500 do (setq b (* b i)) finally return b))))
  (condition-case e (car 5) (error (message "%S" e))))
EOF
emacs -Q --batch --eval '(setq byte-compile-warnings nil)' -f batch-byte-compile program.el
emacs -Q --batch -l ./program.elc --eval "(program $n)" 2>&1
