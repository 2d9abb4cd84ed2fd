#!/usr/bin/env bash
# R: vectors, lists, strings, factors, data frames, matrices, closures, expressions that are built and evaluated, and what is
# written and read again; its collector returns memory by pages of its own and by blocks.
# packages: r-base-core
# program: R
# bindings: brief
set -euo pipefail
cat >program.R <<'END'
n <- as.integer(commandArgs(trailingOnly = TRUE)[1])
x <- 1
draw <- function(k) vapply(seq_len(k), function(i) { x <<- (x * 16807) %% 2147483647; x %% 1000003 }, 0)
digest <- function(v) { v <- utf8ToInt(paste(v, collapse = ",")); sum((v * (seq_along(v) %% 9973)) %% 1000003) %% 1000003 }

keys <- paste0("k", draw(n) %% 997)
counts <- table(keys)
cat("table", length(counts), digest(names(counts)), digest(as.integer(counts)), "\n")
groups <- split(seq_along(keys), keys)
cat("split", length(groups), digest(vapply(groups, function(g) sum(g %% 1009), 0)), "\n")
texts <- gsub("k(\\d)", "<\\1>", keys)
cat("strings", digest(head(sort(unique(toupper(texts)), method = "radix"), 500)), sum(nchar(texts)), "\n")
frame <- data.frame(key = keys, value = draw(n) %% 100, half = seq_len(n) / 2)
for (i in 1:20) frame$value <- frame$value + i
frame <- merge(frame, data.frame(key = names(counts), count = as.integer(counts)))
means <- aggregate(value ~ count, frame, sum)
cat("frames", dim(frame), digest(means$value), "\n")
m <- matrix(seq_len(200 * 200) %% 17 + 1, 200)
cat("matrices", sum(crossprod(m)), round(sum(solve(crossprod(m) + diag(1e4, 200))), 9), "\n")
closures <- lapply(seq_len(n / 4), function(i) { force(i); function(y) y + i })
cat("closures", sum(vapply(closures, function(f) f(1), 0)), "\n")
cat("evaluated", sum(vapply(1:500, function(i) eval(parse(text = sprintf("local({ f <- function(z) z * %d; f(2) })", i))), 0)), "\n")
pairs <- lapply(seq_len(n), function(i) c(i, i + 1))
cat("lists", sum(unlist(pairs)), "\n")
state <- new.env()
for (k in unique(keys)) assign(k, nchar(k), envir = state)
cat("environments", sum(unlist(mget(ls(state), envir = state))), "\n")
again <- unserialize(serialize(list(frame, groups, m), NULL))
stopifnot(identical(again, list(frame, groups, m)))
write.csv(frame, "frame.csv", row.names = FALSE)
stopifnot(all.equal(read.csv("frame.csv"), frame))
rm(pairs, closures, frame, again)
invisible(gc())
cat("vectors", sum(vapply(1:40, function(i) { v <- numeric(2^(i %% 20)); v[length(v)] <- i; sum(v) }, 0)), "\n")
cat("errors", tryCatch(stop("as it should"), error = conditionMessage), "\n")
END
n=200000
[ "${1:-}" != brief ] || n=100
R --vanilla --no-echo -f program.R --args "$n"
