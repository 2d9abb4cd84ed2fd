#!/usr/bin/env bash
# Git: commits by hand and by fast-import, branches and merges, clones, garbage collected with threads, and a check of all.
# packages: git
# program: git
set -euo pipefail
digest() { sha256sum | cut -c1-16; }
export GIT_AUTHOR_NAME=Nobody GIT_AUTHOR_EMAIL=nobody@example.org GIT_COMMITTER_NAME=Nobody
export GIT_COMMITTER_EMAIL=nobody@example.org GIT_AUTHOR_DATE='1000000000 +0000' GIT_COMMITTER_DATE='1000000000 +0000'
export GIT_CONFIG_NOSYSTEM=1
git config --global pack.threads 4
git config --global index.threads 2
git config --global gc.auto 0
git config --global advice.detachedHead false

# $1: the number of commits, as git fast-import reads them.
stream() {
    awk -v n="$1" '
        function data(text) { printf "data %d\n%s\n", length(text), text }
        BEGIN {
            for (i = 1; i <= n; i++) {
                printf "commit refs/heads/imported\ncommitter Nobody <nobody@example.org> %d +0000\n", 1000000000 + i
                data("Commit " i)
                for (f = 0; f < 3; f++) {
                    text = ""
                    for (j = 0; j < 60; j++) text = text "line " j " " int((i + j * 37) / 40) " " f "\n"
                    printf "M 100644 inline directory%d/file%d\n", i % 7, (i * 3 + f) % 50
                    data(text)
                }
            }
        }'
}

by_hand() {
    local i
    for ((i = 0; i < $1; i++)); do
        seq $((i * 10)) $((i * 20 + 10)) >"file$((i % 5))"
        git add -A
        git commit -q -m "Number $i" -m "$(seq $i)"
        case $i in
        4) git checkout -q -b side ;;
        8) git checkout -q main && seq 1000 >other && git add other && git commit -q -m Other && git merge -q -m Merge side ;;
        esac
    done
}

git init -q -b main repository
cd repository
by_hand "$([ "${1:-}" = brief ] && echo 1 || echo 12)"
stream "$([ "${1:-}" = brief ] && echo 2 || echo 500)" | git fast-import --quiet
git merge -q --allow-unrelated-histories -m 'Both' imported
git rev-list --all --objects | digest
[ "${1:-}" != brief ] || exit 0
git log --stat --patch -M | digest
git blame directory3/file3 | digest
git grep -n 'line 4' imported~100 | digest
git archive --format=tar HEAD | digest
git tag -a -m Tagged tagged HEAD~1
git repack -q -a -d
git gc -q --aggressive --prune=now
git fsck --full --strict
git count-objects -v | grep -E '^(count|in-pack|packs|garbage)'
cd ..
git clone -q --no-local repository clone
git clone -q --bare --depth 50 "file://$PWD/repository" shallow
git -C shallow rev-list --all | digest
cd clone
git rev-list --all --objects | digest
git checkout -q -b work HEAD~2
git rebase -q --onto origin/side HEAD~1 work
git cherry-pick --allow-empty origin/main~3 >/dev/null || git cherry-pick --abort
git reset -q --hard origin/main
git stash list
git bundle create -q all.bundle --all
git bundle verify all.bundle >/dev/null 2>&1
git status --short | digest
git fsck --full --strict
