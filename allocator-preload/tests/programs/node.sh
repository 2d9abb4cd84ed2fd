#!/usr/bin/env bash
# Node: JSON, maps, buffers, expressions, promises, the thread pool (compression, keys), files, and threads with messages.
# packages: nodejs
# program: node|MainThread
set -euo pipefail
cat >program.js <<'EOF'
'use strict';
const { Worker, isMainThread, parentPort, workerData } = require('worker_threads');
const crypto = require('crypto');
const zlib = require('zlib');
const { promisify } = require('util');
const fs = require('fs/promises');
const digest = data => crypto.createHash('sha256').update(data).digest('hex').slice(0, 16);
let x = 1;
const next = () => x = x * 16807 % 2147483647;

if (!isMainThread) {
  const parts = [];
  for (let i = 0; i < workerData.n / 10; i++) parts.push(Buffer.alloc(next() % 2000, `worker ${workerData.k}`));
  const all = Buffer.concat(parts);
  const counter = new Int32Array(workerData.shared);
  Atomics.add(counter, 0, parts.length);
  const own = new Uint8Array(all).buffer;
  parentPort.postMessage({ k: workerData.k, length: all.length, digest: digest(all), own }, [own]);
} else {
  main(Number(process.argv[2])).catch(error => { console.error(error); process.exit(1); });
}

function worker(k, n, shared) {
  return new Promise((resolve, reject) => {
    const w = new Worker(__filename, { workerData: { k, n, shared } });
    let message;
    w.on('message', m => message = m).on('error', reject).on('exit', () => resolve(message));
  });
}

async function main(n) {
  const objects = Array.from({ length: n }, (_, i) => ({ i, name: `n${next() % 1000}`, list: [i, x % 7, { deep: x }] }));
  const text = JSON.stringify(objects);
  console.log('json', text.length, digest(text), JSON.parse(text).reduce((s, o) => s + o.list[1], 0));

  const map = new Map();
  for (const o of objects) map.set(o.name, (map.get(o.name) || '') + o.i);
  console.log('map', map.size, digest([...map].sort().join()), structuredClone(map).size);

  const weak = new WeakMap();
  for (const o of objects) weak.set(o, Buffer.allocUnsafe(16 + o.i % 100).fill(o.i));
  console.log('weak', digest(Buffer.concat(objects.map(o => weak.get(o)))));

  const buffers = [];
  for (let i = 0; i < n; i++) buffers[next() % 500] = Buffer.alloc(x % 20000, i);
  console.log('buffers', buffers.reduce((s, b) => s + (b ? b.length : 0), 0));

  const words = objects.map(o => o.name).join(' ');
  console.log('regex', digest(words.replace(/n(\d)(\d*)/gu, '$2-$1')), [...words.matchAll(/(?<=n)(\d)\d\1/g)].length);

  const sums = await Promise.all(objects.map(async o => { await null; return o.list[0] % 3; }));
  console.log('promises', sums.reduce((a, b) => a + b));

  const data = Buffer.from(text);
  const packed = await Promise.all([1, 6, 9].map(level => promisify(zlib.deflate)(data, { level })));
  const brotli = await promisify(zlib.brotliCompress)(data, { params: { [zlib.constants.BROTLI_PARAM_QUALITY]: 4 } });
  for (const p of packed) if (!(await promisify(zlib.inflate)(p)).equals(data)) throw new Error('inflate');
  if (!(await promisify(zlib.brotliDecompress)(brotli)).equals(data)) throw new Error('brotli');
  const keys = await Promise.all([1, 2, 3, 4].map(k => promisify(crypto.pbkdf2)('secret', `salt${k}`, 2000, 64, 'sha512')));
  console.log('pool', packed.length, digest(Buffer.concat(keys)));

  await Promise.all(objects.slice(0, 200).map(o => fs.writeFile(`file${o.i}`, o.name.repeat(o.i))));
  const read = await Promise.all(objects.slice(0, 200).map(o => fs.readFile(`file${o.i}`)));
  console.log('files', digest(Buffer.concat(read)));

  const shared = new SharedArrayBuffer(4);
  const results = await Promise.all([1, 2, 3].map(k => worker(k, n, shared)));
  for (const r of results) console.log('worker', r.k, r.length, r.digest, r.own.byteLength);
  console.log('shared', new Int32Array(shared)[0]);
}
EOF
node program.js "$([ "${1:-}" = brief ] && echo 100 || echo 50000)"
