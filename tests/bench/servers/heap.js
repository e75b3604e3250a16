// SPDX-License-Identifier: MIT
// heap.js MIB SOCKET: a heap of small objects; says its sum to whoever connects.
'use strict';
const net = require('net');

const heap = [];
const words = Number(process.argv[2]) * 8000;

for (let i = 0; i < words; i++)
	heap.push({ key: i, word: 'word ' + i * 7919, next: i ? heap[(i * 31) % i] : null });

function sum() {
	let value = 0;

	for (const o of heap)
		value = (value * 31 + o.key + o.word.length + (o.next ? o.next.key : 0)) % 1000000007;
	return value;
}

net.createServer((client) => client.end(sum() + '\n')).listen(process.argv[3]);
