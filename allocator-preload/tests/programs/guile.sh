#!/usr/bin/env bash
# Guile: lists, hash tables, strings, large numbers, continuations, compiled code, threads; its collector has a heap of its own,
# and takes the memory of large numbers and ports from malloc.
# packages: guile-3.0
# program: guile.*
set -euo pipefail
export GUILE_AUTO_COMPILE=0
cat >program.scm <<'EOF'
(use-modules (ice-9 threads) (ice-9 regex) (ice-9 format) (srfi srfi-1) (srfi srfi-9) (rnrs bytevectors))
(define n (string->number (cadr (command-line))))
(define x 1)
(define (draw) (set! x (modulo (* x 16807) 2147483647)) x)
(define (digest text) (number->string (string-fold (lambda (c h) (modulo (+ (* h 33) (char->integer c)) 4294967296)) 5381 text) 16))

(let ((table (make-hash-table)))
  (do ((i 0 (1+ i))) ((= i n))
    (let ((k (string-append "key" (number->string (modulo (draw) 2000)))))
      (hash-set! table k (cons i (hash-ref table k '())))))
  (let ((all (sort (hash-map->list (lambda (k v) (format #f "~a=~a" k (apply + v))) table) string<?)))
    (format #t "tables ~a ~a\n" (length all) (digest (string-join all ",")))))

(let ((l (sort (map (lambda (i) (modulo (draw) 100000)) (iota n)) <)))
  (format #t "lists ~a ~a ~a\n" (length l) (fold + 0 (delete-duplicates (take l (quotient n 50)))) (last l)))

(let ((text (string-concatenate (map (lambda (i) (string-append "word" (number->string (modulo (draw) 300)) " ")) (iota (quotient n 10))))))
  (format #t "strings ~a ~a ~a\n" (string-length text) (digest (string-upcase text))
          (length (list-matches "d[0-9]1" text)))
  (format #t "bytes ~a\n" (bytevector-length (string->utf16 text))))

(define (factorial n) (if (< n 2) 1 (* n (factorial (1- n)))))
(format #t "numbers ~a ~a\n" (digest (number->string (factorial 1000))) (modulo (expt 3 20000) 1000007))
(format #t "fractions ~a\n" (digest (number->string (fold + 0 (map (lambda (i) (/ 1 (1+ i))) (iota 400))))))
(format #t "continuations ~a\n" (fold + 0 (map (lambda (i) (call/cc (lambda (k) (if (odd? i) (k i) 1)))) (iota (quotient n 20)))))
(format #t "ports ~a\n" (fold + 0 (map (lambda (i) (string-length (call-with-output-string (lambda (p) (write (iota i) p))))) (iota 200))))
(format #t "eval ~a\n" (fold + 0 (map (lambda (i) (eval `(let ((a ,i)) (* a 2)) (current-module))) (iota (min n 500)))))
(format #t "threads ~a\n" (apply + (map join-thread
  (map (lambda (k) (call-with-new-thread (lambda ()
    (fold + 0 (map (lambda (i) (string-length (number->string (expt k (modulo i 300))))) (iota (quotient n 10)))))))
   '(3 5 7 11)))))
(gc)
(format #t "vectors ~a\n" (vector-length (make-vector (* 10 n) 'a)))
EOF
guile --no-auto-compile -s program.scm "$([ "${1:-}" = brief ] && echo 100 || echo 30000)"
