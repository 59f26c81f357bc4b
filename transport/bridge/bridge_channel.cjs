'use strict';
// Lines of JSON over two private descriptors, and the conversion of interpreter values to JSON without losing any.

const fs = require('node:fs');
const net = require('node:net');

const PAUSE_ABOVE_BYTES = 16 * 1024 * 1024;

/**
 * A JSON-ready copy of `value`. Nothing is cut; only a true cycle and objects that belong to the interpreter are replaced by a text.
 */
function plain(value, above = new Set()) {
  if (value === null || typeof value === 'string' || typeof value === 'number' || typeof value === 'boolean') return value;
  if (typeof value === 'bigint') return value.toString();
  if (typeof value !== 'object') return undefined;
  if (value instanceof Date) return Number.isNaN(value.getTime()) ? null : value.toISOString();
  if (value instanceof Error) return describeError(value);
  if (value instanceof Map) return plain(Object.fromEntries(value), above);
  if (value instanceof Set) return plain([...value], above);
  if (above.has(value)) return '[Circular]';
  above.add(value);
  try {
    if (Array.isArray(value)) return value.map((item) => plain(item, above)).filter((item) => item !== undefined);
    const prototype = Object.getPrototypeOf(value);
    if (prototype !== null && Object.getPrototypeOf(prototype) !== null) return `[${value.constructor?.name ?? 'Object'}]`;
    const copy = {};
    for (const [key, item] of Object.entries(value)) {
      const converted = plain(item, above);
      if (converted !== undefined) define(copy, key, converted);
    }
    return copy;
  } finally {
    above.delete(value);
  }
}

function define(target, key, value) {
  if (key === '__proto__') Object.defineProperty(target, key, { value, enumerable: true, configurable: true, writable: true });
  else target[key] = value;
}

/** An exception as `{name, message, code?, filePath?, stack?, cause?}`, whole, causes included. */
function describeError(error, depth = 0) {
  if (!(error instanceof Error)) return { name: 'Error', message: String(error) };
  const described = { name: error.name || 'Error', message: error.message || String(error) };
  if (typeof error.code === 'string' && error.code) described.code = error.code;
  if (depth === 0 && typeof error.filePath === 'string') described.filePath = error.filePath;
  if (depth === 0 && typeof error.stack === 'string') described.stack = error.stack;
  if (error.cause !== undefined && error.cause !== null && depth < 8) described.cause = describeError(error.cause, depth + 1);
  return described;
}

/**
 * Take over one end of an inherited pipe. It is opened anew, because Node marks only the descriptors it opened itself, and the
 * first few inherited ones, as not for children; without blocking, so that a host that is gone already cannot hang the start.
 */
function takeOver(fd, access) {
  if (!fs.fstatSync(fd).isFIFO()) throw new Error(`descriptor ${fd} is no pipe`);
  const own = fs.openSync(`/dev/fd/${fd}`, access | fs.constants.O_NONBLOCK);
  fs.closeSync(fd);
  return own;
}

class Channel {
  constructor(requestFd, responseFd) {
    this.requestFd = takeOver(requestFd, fs.constants.O_RDONLY);
    this.responseFd = takeOver(responseFd, fs.constants.O_WRONLY);
  }

  /**
   * @param onLine called with each non-blank line
   * @param onEnd called when requests can no longer arrive (`false`) or answers can no longer leave (`true`)
   */
  open(onLine, onEnd) {
    this.input = new net.Socket({ fd: this.requestFd, readable: true, writable: false });
    this.output = new net.Socket({ fd: this.responseFd, readable: false, writable: true });
    this.output.on('drain', () => this.input.resume());
    this.output.on('error', () => onEnd(true));
    this.input.on('error', () => onEnd(false));
    this.input.on('end', () => onEnd(false));
    let pieces = [];
    this.input.on('data', (block) => {
      let from = 0;
      for (let newline = block.indexOf(10); newline >= 0; newline = block.indexOf(10, from)) {
        pieces.push(block.subarray(from, newline));
        from = newline + 1;
        const line = Buffer.concat(pieces).toString('utf8').trim();
        pieces = [];
        if (line) onLine(line);
      }
      if (from < block.length) pieces.push(block.subarray(from));
    });
  }

  write(message) {
    if (this.output.destroyed || this.output.writableEnded) return;
    this.output.write(`${JSON.stringify(message)}\n`);
    // A host that does not read gets no new work done: requests wait in the pipe, not in this process's memory.
    if (this.output.writableLength > PAUSE_ABOVE_BYTES) this.input.pause();
  }

  /** Send what is still buffered, then call `done`; at most `deadlineMs` later in any case. */
  finish(deadlineMs, done) {
    this.input.pause();
    const timer = setTimeout(done, deadlineMs);
    const finished = () => {
      clearTimeout(timer);
      done();
    };
    if (this.output.destroyed) finished();
    else this.output.end(finished);
  }
}

module.exports = { Channel, describeError, plain };
