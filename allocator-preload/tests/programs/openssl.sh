#!/usr/bin/env bash
# OpenSSL: digests, ciphers, keys, certificates, messages; what is random is only used, not printed.
# packages: openssl
# program: openssl
set -euo pipefail
lines=200000
[ "${1:-}" != brief ] || lines=100
seq "$lines" >data
for kind in md5 sha1 sha256 sha512 sha3-256 blake2b512; do openssl dgst -$kind data; done
openssl dgst -sha256 -mac HMAC -macopt key:secret data
[ "${1:-}" != brief ] || exit 0
for kind in aes-256-cbc aes-128-ctr chacha20 camellia-128-cbc; do
    openssl enc -$kind -pbkdf2 -iter 1000 -S 0102030405060708 -pass pass:secret -in data -out coded
    sha256sum coded
    openssl enc -d -$kind -pbkdf2 -iter 1000 -S 0102030405060708 -pass pass:secret -in coded | cmp - data
done
openssl enc -base64 -in data | openssl enc -d -base64 | cmp - data
openssl prime -hex 7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF
quiet() { "$@" 2>messages || { cat messages && false; }; }
quiet openssl genrsa -out rsa.pem 2048
quiet openssl genpkey -algorithm ed25519 -out ed.pem
quiet openssl ecparam -name prime256v1 -genkey -noout -out ec.pem
for key in rsa ec; do
    openssl pkey -in $key.pem -pubout -out $key.pub
    openssl dgst -sha256 -sign $key.pem -out signature data
    openssl dgst -sha256 -verify $key.pub -signature signature data
    quiet openssl req -x509 -new -key $key.pem -subj /CN=root -days 30 -out $key.root
    quiet openssl req -new -key ed.pem -subj /CN=leaf -out leaf.csr
    quiet openssl x509 -req -in leaf.csr -CA $key.root -CAkey $key.pem -set_serial 7 -days 30 -out leaf.crt
    openssl verify -CAfile $key.root leaf.crt
    openssl x509 -in leaf.crt -noout -subject -issuer -serial
done
openssl cms -encrypt -binary -aes128 -in data -out message rsa.root
openssl cms -decrypt -in message -inkey rsa.pem -recip rsa.root | cmp - data
openssl pkcs12 -export -inkey rsa.pem -in rsa.root -passout pass:x -out store
openssl pkcs12 -in store -passin pass:x -nodes -out opened
openssl asn1parse -in rsa.root | wc -l
