'use strict';
// The checkpoint cache on disk, as the extended protocol's parameters need it (docs/extended-protocol.md, section 4).
// The interpreter writes and reads entries itself; this file only prepares a cache before a run.

const fs = require('node:fs');
const path = require('node:path');

const INDEX = 'llm-cache.jsonl';

class CacheRequestError extends Error {
  constructor(code, message) {
    super(message);
    this.code = code;
  }
}

/** The cache name of a script: its base name, or its directory's name for `index` and `main`. */
function defaultName(filePath) {
  const parsed = path.parse(filePath);
  const stem = parsed.base.endsWith('.mld.md')
    ? parsed.base.slice(0, -'.mld.md'.length)
    : parsed.base.replace(/\.mld$/, '');
  const directory = path.basename(parsed.dir);
  return /^(index|main)\.mld(\.md)?$/i.test(parsed.base) && directory ? directory : stem.trim() || undefined;
}

/** What a `resume` text asks to drop: entries of a function, or everything behind a named checkpoint. */
function parseTarget(text) {
  const trimmed = text.trim();
  if (!trimmed) throw new CacheRequestError('INVALID_REQUEST', "resume must not be empty; use true, '@fn', '@fn:2', '@fn(\"prefix\")' or a checkpoint name");
  if (!trimmed.startsWith('@')) return { checkpoint: trimmed };
  const match = /^@([^\s:()]+)(?::(\d+)|\((.*)\))?$/s.exec(trimmed);
  const prefix = match && match[3] !== undefined ? unquote(match[3].trim()) : undefined;
  if (!match || (match[3] !== undefined && !prefix)) {
    throw new CacheRequestError('INVALID_REQUEST', `resume: "${text}" is no function target; use '@fn', '@fn:2' or '@fn("prefix")'`);
  }
  return { fn: match[1], index: match[2] === undefined ? undefined : Number(match[2]), prefix };
}

function unquote(text) {
  try {
    const value = JSON.parse(text);
    return typeof value === 'string' ? value : undefined;
  } catch {
    const single = /^'(.*)'$/s.exec(text);
    return single ? single[1] : undefined;
  }
}

/** A row counts when the fields the interpreter insists on are there. */
function parseRow(line) {
  let row;
  try {
    row = JSON.parse(line);
  } catch {
    return undefined;
  }
  const filled = (value) => typeof value === 'string' && value.length > 0;
  const complete = row && filled(row.key) && filled(row.fn) && filled(row.argsHash) && filled(row.ts) && typeof row.argsPreview === 'string';
  return complete ? row : undefined;
}

class CheckpointCache {
  constructor(root, name) {
    this.directory = path.join(root, name);
    this.index = path.join(this.directory, INDEX);
    this.results = path.join(this.directory, 'results');
  }

  exists() {
    return fs.existsSync(this.index);
  }

  resultPath(key) {
    return path.join(this.results, `${key.replace(/[^a-zA-Z0-9_-]/g, '-')}.json`);
  }

  /** Rows by key; the last one of a repeated key wins. */
  rows() {
    const found = new Map();
    if (!this.exists()) return found;
    for (const line of fs.readFileSync(this.index, 'utf8').split('\n')) {
      const row = parseRow(line);
      if (row) found.set(row.key, row);
    }
    return found;
  }

  clear() {
    fs.rmSync(this.directory, { recursive: true, force: true });
  }

  /** Cut off a last row without a newline: the next row appended to it would be lost as well. */
  repair() {
    let file;
    try {
      file = fs.openSync(this.index, 'r+');
    } catch (error) {
      if (error.code === 'ENOENT') return;
      throw error;
    }
    try {
      const end = fs.fstatSync(file).size;
      const chunk = Buffer.alloc(64 * 1024);
      let keep = end;
      while (keep > 0) {
        const from = Math.max(0, keep - chunk.length);
        const length = fs.readSync(file, chunk, 0, keep - from, from);
        const newline = chunk.subarray(0, length).lastIndexOf(10);
        if (newline >= 0) {
          keep = from + newline + 1;
          break;
        }
        keep = from;
      }
      if (keep < end) fs.ftruncateSync(file, keep);
    } finally {
      fs.closeSync(file);
    }
  }

  /** Copy every entry of `other` that this cache lacks. */
  copyMissingFrom(other) {
    const mine = this.rows();
    const missing = [...other.rows().values()].filter((row) => !this.holds(mine, row.key) && fs.existsSync(other.resultPath(row.key)));
    if (missing.length === 0) return;
    fs.mkdirSync(this.results, { recursive: true });
    for (const row of missing) replaceFile(this.resultPath(row.key), fs.readFileSync(other.resultPath(row.key)));
    fs.appendFileSync(this.index, missing.map((row) => `${JSON.stringify(row)}\n`).join(''));
  }

  holds(rows, key) {
    return rows.has(key) && fs.existsSync(this.resultPath(key));
  }

  /** Drop the entries of one function, or those of them that carry an index or begin with a prefix. */
  drop({ fn, index, prefix }) {
    const dropped = (row) =>
      row.fn === fn &&
      (index === undefined || row.invocationIndex === index) &&
      (prefix === undefined || row.argsPreview.startsWith(prefix));
    const rows = [...this.rows().values()];
    if (!rows.some(dropped)) return;
    const kept = rows.filter((row) => !dropped(row));
    replaceFile(this.index, kept.map((row) => `${JSON.stringify(row)}\n`).join(''));
    for (const row of rows.filter(dropped)) fs.rmSync(this.resultPath(row.key), { force: true });
  }
}

function replaceFile(target, content) {
  const temporary = `${target}.${process.pid}.${Date.now()}.tmp`;
  fs.writeFileSync(temporary, content);
  fs.renameSync(temporary, target);
}

/** Read and check the checkpoint parameters of one request; throws INVALID_REQUEST. */
function parseCheckpointParams(params, filePath) {
  const wrong = (name, want) => new CacheRequestError('INVALID_REQUEST', `${name} must be ${want}, got ${JSON.stringify(params[name])}`);
  for (const name of ['checkpoint', 'noCheckpoint', 'fresh']) {
    if (params[name] !== undefined && typeof params[name] !== 'boolean') throw wrong(name, 'true or false');
  }
  for (const name of ['fork', 'checkpointRoot', 'checkpointName']) {
    if (params[name] !== undefined && (typeof params[name] !== 'string' || !params[name].trim())) throw wrong(name, 'a non-empty string');
  }
  for (const name of ['fork', 'checkpointName']) {
    if (params[name] !== undefined && (/[/\\\0]/.test(params[name]) || /^\.\.?$/.test(params[name].trim()))) throw wrong(name, "a plain name without '/'");
  }
  if (params.resume !== undefined && typeof params.resume !== 'boolean' && typeof params.resume !== 'string') throw wrong('resume', 'true or a text');

  const target = typeof params.resume === 'string' ? parseTarget(params.resume) : undefined;
  const off = params.noCheckpoint === true || params.checkpoint === false;
  const asksCache = params.checkpoint === true || params.fresh === true || Boolean(params.resume) || params.fork !== undefined;
  if (off && asksCache) {
    throw new CacheRequestError('INVALID_REQUEST', 'checkpoint: false (noCheckpoint) cannot be combined with checkpoint: true, fresh, resume or fork');
  }
  const name = params.checkpointName?.trim() ?? (filePath === undefined ? undefined : defaultName(filePath));
  if (asksCache && name === undefined) {
    throw new CacheRequestError('INVALID_REQUEST', 'this request has no cache: give it a filePath or a checkpointName');
  }
  return { off, serves: asksCache, fresh: params.fresh === true, fork: params.fork?.trim(), target, name, root: params.checkpointRoot };
}

/** Bring the cache into the state the request asked for, and say which options the interpreter needs. */
function prepareCache(asked, workingDirectory, defaultRoot) {
  if (asked.off || asked.name === undefined) return { noCheckpoint: true };
  const root = path.resolve(workingDirectory, asked.root ?? defaultRoot);
  const cache = new CheckpointCache(root, asked.name);
  if (asked.fresh) cache.clear();
  cache.repair();
  if (asked.fork !== undefined) {
    const other = new CheckpointCache(root, asked.fork);
    if (!other.exists()) throw new CacheRequestError('CHECKPOINT_NOT_FOUND', `there is no cache named "${asked.fork}" in ${root}`);
    cache.copyMissingFrom(other);
  }
  if (asked.target?.fn !== undefined) cache.drop(asked.target);
  return {
    checkpointScriptName: asked.name,
    checkpointCacheRootDir: root,
    ...(asked.serves ? { resume: asked.target?.checkpoint ?? true } : {})
  };
}

module.exports = { CheckpointCache, parseCheckpointParams, prepareCache, defaultName, parseTarget };
