'use strict';
// The bridge engine: the extended protocol (docs/extended-protocol.md) over the user's own mlld package, loaded into this process.
//
// Environment: MLLD_ENGINE_REQUEST_FD, MLLD_ENGINE_RESPONSE_FD (private descriptors), MLLD_OTP_BRIDGE_PACKAGE (directory of the
// installed package), MLLD_OTP_BRIDGE_VERSION (what `hello` reports as the engine's version).

const { AsyncLocalStorage } = require('node:async_hooks');
const { spawn } = require('node:child_process');
const { randomUUID } = require('node:crypto');
const fs = require('node:fs');
const path = require('node:path');
const readline = require('node:readline');

const { parseCheckpointParams, prepareCache } = require('./bridge_cache.cjs');
const { Channel, describeError, plain } = require('./bridge_channel.cjs');
const { MOST_TOLD, messageOf } = require('./bridge_commands.cjs');
const { LayoutError, argsPreview, loadPackage } = require('./bridge_package.cjs');

const EXIT_UNUSABLE = 78;
const OLDEST_NODE = 18;
const LONGEST_TIMEOUT_MS = 2147483647;
const FLUSH_MS = 5000;
const DELEGATE_IDLE_MS = 30000;
const FEATURES = ['full-values', 'private-descriptors', 'checkpoint', 'checkpoint-events', 'survives-failures', 'metrics', 'file-write', 'streaming', 'state-update', 'cancel-at-steps', 'command-failures'];
const EVENTS = [
  'effect', 'command:start', 'command:complete', 'stream:chunk', 'stream:progress', 'state:write', 'guard_denial',
  'session_write', 'trace_event',
  'streaming:thinking', 'streaming:message', 'streaming:tool-use', 'streaming:tool-result', 'streaming:error', 'streaming:metadata'
];
const DELEGATED = new Set(['sig:sign', 'sig:verify', 'sig:sign-content', 'fs:status']);

let home;
const reallyExit = process.exit.bind(process);
const running = new AsyncLocalStorage();
const active = new Map();
const answered = new WeakSet(); // exceptions that became some request's error already
let channel;
let mlld;
let delegate;
let stopping = false;

/** An expected failure: answered with its code, without stack or name. */
class Refusal extends Error {
  constructor(code, message) {
    super(message);
    this.code = code;
  }
}

/** A command in an `llm` function failed, and the request asked to fail then. */
class CommandFailed extends Refusal {
  constructor(unanswered) {
    super('COMMAND_FAILED', messageOf(unanswered));
    this.unanswered = unanswered;
  }
}

class Request {
  constructor(id, method) {
    this.id = id;
    this.method = method;
    this.stopped = undefined; // why it ended early; the next operation of its script throws this
    this.unanswered = []; // calls of `llm` functions that gave no answer
    this.settled = false;
    this.ready = new Promise((resolve) => {
      this.started = resolve; // with the running script's handle, or undefined if it ends without one
    });
    active.set(id, this);
  }

  emit(type, fields) {
    if (this.settled) return;
    const { id: toolUseId, type: _same, ...own } = fields;
    channel.write({ event: { id: this.id, type, requestId: this.id, ...own, ...(toolUseId === undefined ? {} : { toolUseId }) } });
  }

  /** Answer once; whatever comes later is dropped. */
  settle(answer) {
    if (this.settled) return;
    this.settled = true;
    clearTimeout(this.timer);
    active.delete(this.id);
    this.started(undefined);
    writeResult(this.id, answer);
  }

  /** Answer with an error now and let the script stop at its next operation. */
  stop(error, refusal) {
    if (this.settled) return;
    this.stopped = error;
    this.settle({ error: refusal });
    this.handle?.abort?.();
  }
}

function writeResult(id, answer) {
  const spread = answer !== null && typeof answer === 'object' && !Array.isArray(answer) && !Object.hasOwn(answer, 'id');
  channel.write({ result: spread ? { id, ...answer } : { id, value: answer } });
}

function asError(error) {
  if (error instanceof CommandFailed) return { code: error.code, message: error.message, name: 'CommandFailed', unanswered: error.unanswered };
  if (error instanceof Refusal || error?.constructor?.name === 'CacheRequestError') return { code: error.code, message: error.message };
  const { code, message, ...described } = describeError(error);
  return { code: code ?? 'RUNTIME_ERROR', message, ...described };
}

// ---- requests -------------------------------------------------------------------------------------------------------

function onLine(line) {
  let request;
  try {
    request = JSON.parse(line);
  } catch (error) {
    return writeResult(null, { error: { code: 'INVALID_JSON', message: error.message } });
  }
  const id = typeof request?.id === 'string' || typeof request?.id === 'number' ? request.id : null;
  const method = typeof request?.method === 'string' ? request.method : '';
  const refuse = (code, message) => writeResult(id, { error: { code, message } });
  if (!method) return refuse('INVALID_REQUEST', 'Request method is required');
  if (method === 'cancel') return cancel(id, refuse);
  if (id === null) return refuse('INVALID_REQUEST', 'Request id is required');
  if (active.has(id)) return refuse('REQUEST_IN_PROGRESS', `Request ${id} is already active`);
  if (method === 'hello') return writeResult(id, { value: hello() });
  if (DELEGATED.has(method) && !delegate) return refuse('METHOD_NOT_FOUND', `Method '${method}' is out of the bridge's reach: this mlld package has no dist/cli.cjs`);
  const handler = DELEGATED.has(method) ? (params) => delegate.ask(method, params) : METHODS[method];
  if (!handler) return refuse('METHOD_NOT_FOUND', `Method '${method}' is not supported`);
  const current = new Request(id, method);
  Promise.resolve()
    .then(() => (current.settled ? undefined : handler(request.params, current))) // a cancel may have come with the request
    .then((answer) => current.settle(answer), (error) => current.settle({ error: asError(error) }));
}

function cancel(id, refuse) {
  if (id === null) return refuse('INVALID_REQUEST', 'Cancel id is required');
  const target = active.get(id);
  if (!target) return refuse('REQUEST_NOT_FOUND', `No active request for id ${id}`);
  target.stop(new Refusal('ABORTED', 'Request was cancelled'), { code: 'ABORTED', message: 'Request was cancelled' });
}

function hello() {
  return {
    engine: 'bridge',
    version: process.env.MLLD_OTP_BRIDGE_VERSION ?? 'unknown',
    mlld: mlld.version,
    protocol: 1,
    features: delegate ? [...FEATURES, 'signatures'] : FEATURES
  };
}

const METHODS = {
  __proto__: null, // no method is called `toString`
  process: (params, request) => {
    const given = typeof params === 'string' ? { script: params } : params;
    if (!isRecord(given)) throw new Error('process params must be a script string or object');
    if (typeof given.script !== 'string') throw new Error('process params.script must be a string');
    const filePath = text(given.filePath);
    return run(request, given, filePath, (files) => mlld.withScript(files, filePath, given.script), processMode(given, filePath));
  },
  execute: (params, request) => {
    if (!isRecord(params)) throw new Error('execute params must be an object');
    if (typeof params.filepath !== 'string') throw new Error('execute params.filepath must be a string');
    return run(request, params, params.filepath, (files) => files, mode(params.mode));
  },
  analyze: async (params) => {
    const filepath = typeof params === 'string' ? params : params?.filepath;
    if (typeof filepath !== 'string') throw new Error('analyze params.filepath must be a string');
    return plain(await mlld.analyze(filepath));
  },
  'state:update': async (params) => {
    const target = targetOf(params, 'state:update');
    if (typeof params.path !== 'string' || !params.path.trim()) throw new Refusal('INVALID_REQUEST', 'state:update params.path must be a non-empty string');
    if (params.labels !== undefined && !(Array.isArray(params.labels) && params.labels.every((label) => typeof label === 'string'))) {
      throw new Refusal('INVALID_REQUEST', 'state:update params.labels must be an array of strings');
    }
    const handle = await scriptOf(target);
    if (!handle.updateState) throw new Refusal('STATE_UNAVAILABLE', `Request ${target.id} has no dynamic @state to update`);
    await handle.updateState(params.path, params.value, params.labels);
    return { requestId: target.id, path: params.path };
  },
  'file:write': async (params) => {
    const target = targetOf(params, 'file:write');
    if (typeof params.path !== 'string' || !params.path.trim()) throw new Refusal('INVALID_REQUEST', 'file:write params.path must be a non-empty string');
    if (typeof params.content !== 'string') throw new Refusal('INVALID_REQUEST', 'file:write params.content must be a string');
    if (target.method !== 'execute') throw new Refusal('FILE_WRITE_UNAVAILABLE', `Request ${target.id} does not support file writes`);
    await scriptOf(target);
    return plain(await writeFile(target, params.path, params.content));
  }
};

function targetOf(params, method) {
  const id = isRecord(params) ? params.requestId : undefined;
  if (typeof id !== 'string' && typeof id !== 'number') throw new Refusal('INVALID_REQUEST', `${method} params.requestId must be a string or a number`);
  const target = active.get(id);
  if (!target) throw new Refusal('REQUEST_NOT_FOUND', `No active request for id ${id}`);
  return target;
}

async function scriptOf(target) {
  const handle = ['process', 'execute'].includes(target.method) ? await target.ready : undefined;
  if (!handle || target.settled) throw new Refusal('REQUEST_NOT_FOUND', `No active request for id ${target.id}`);
  return handle;
}

// ---- running a script -----------------------------------------------------------------------------------------------

async function run(request, params, filePath, view, languageMode) {
  const timeoutMs = timeout(params.timeoutMs);
  const asked = parseCheckpointParams(params, filePath);
  const cacheOptions = prepareCache(asked, home, mlld.checkpointRoot);
  if (timeoutMs !== undefined) {
    request.timer = setTimeout(() => {
      const message = `Request exceeded its timeout of ${timeoutMs} ms`;
      request.stop(new Refusal('TIMEOUT', message), { code: 'TIMEOUT', message });
    }, timeoutMs);
  }
  request.filePath = filePath;
  request.failsUnanswered = failsUnanswered(params.onCommandFailure);
  request.dynamicModuleMode = mode(params.dynamicModuleMode);
  const options = {
    stream: true,
    mode: languageMode,
    fileSystem: view(mlld.newFileSystem()),
    state: isRecord(params.state) ? params.state : undefined,
    dynamicModules: pick(params.dynamicModules, (value) => typeof value === 'string' || isRecord(value)),
    dynamicModuleSource: text(params.dynamicModuleSource),
    payloadLabels: labels(params.payloadLabels),
    allowAbsolutePaths: typeof params.allowAbsolutePaths === 'boolean' ? params.allowAbsolutePaths : undefined,
    mcpServers: pick(params.mcpServers, (value) => typeof value === 'string'),
    trace: params.trace, // these four exist from 2.1.0 on
    traceMemory: params.traceMemory,
    traceFile: params.traceFile,
    traceStderr: params.traceStderr,
    ...cacheOptions
  };
  try {
    return await running.run(request, () => result(request, filePath, params.payload, options));
  } catch (error) {
    if (/^(Unknown|Ambiguous) checkpoint "/.test(error?.message ?? '')) throw new Refusal('CHECKPOINT_NOT_FOUND', error.message);
    // The package wraps what fails before the run as a failure of the file; script text has none.
    throw request.method === 'process' && error?.name === 'ExecuteError' && error.cause instanceof Error ? error.cause : error;
  }
}

async function result(request, filePath, payload, options) {
  const handle = await mlld.execute(filePath, payload, options);
  request.handle = handle;
  // `result` flattens every failure to one code; `done` still has the interpreter's own exception.
  const failure = handle.done().then(() => undefined, (error) => error);
  if (request.stopped) handle.abort();
  request.started(handle);
  let outcome;
  try {
    outcome = await handle.result();
  } catch (error) {
    const own = request.stopped instanceof CommandFailed ? request.stopped : ((await failure) ?? error);
    if (own instanceof Error) answered.add(own);
    throw own;
  } finally {
    request.environment?.cleanup(); // ends the MCP servers of this run, which nothing else does
  }
  if (request.stopped instanceof CommandFailed) throw request.stopped; // a loop may have collected it
  const { environment, ...rest } = outcome;
  const answer = plain(request.unanswered.length > 0 ? { ...rest, unanswered: request.unanswered } : rest);
  request.emit('execution:complete', { result: answer, timestamp: Date.now() });
  return answer;
}

const taps = {
  setup(environment) {
    const request = running.getStore();
    if (!request || request.environment) return;
    request.environment = environment;
    if (request.dynamicModuleMode) environment.setDynamicModuleMode(request.dynamicModuleMode);
  },
  emitter(emitter) {
    const request = running.getStore();
    if (!request || request.emitter) return;
    request.emitter = emitter;
    for (const type of EVENTS) emitter.on(type, (event) => request.settled || request.emit(type, plain(event)));
  },
  step() {
    const request = running.getStore();
    if (request?.stopped) throw request.stopped;
  },
  unanswered(what) {
    const request = running.getStore();
    if (!request || request.settled) return;
    if (request.unanswered.length < MOST_TOLD) request.unanswered.push(what);
    request.emit('llm:unanswered', { unanswered: what, timestamp: Date.now() });
    if (!request.failsUnanswered || !what.command) return;
    request.stopped ??= new CommandFailed(what); // its other branches stop at their next operation; then it is answered
    throw request.stopped;
  },
  decided(operation, decision, inputs, environment) {
    const request = running.getStore();
    if (!request) return;
    const { checkpointHit, checkpointKey } = decision.metadata;
    const never = environment.getCheckpointScriptResumeMode() === 'never' && !environment.hasCheckpointResumeOverride();
    if (never && !checkpointHit) return; // this run neither reads nor writes the cache
    request.emit(checkpointHit ? 'checkpoint:hit' : 'checkpoint:miss', {
      checkpoint: { fn: operation?.name || operation?.type, key: checkpointKey, argsPreview: argsPreview(inputs, environment) },
      timestamp: Date.now()
    });
  }
};

/** Write and sign a file on behalf of a running script, inside its project only. */
async function writeFile(request, target, content) {
  const files = mlld.newFileSystem();
  const { projectRoot, fileDirectory } = await mlld.pathContext(request.filePath, files);
  const absolute = path.resolve(fileDirectory, target);
  if (path.relative(projectRoot, absolute).split(path.sep)[0] === '..') throw new Refusal('RUNTIME_ERROR', `Path escapes project root: ${absolute}`);
  const signatures = request.environment.getSigService();
  await signatures.init();
  const existed = fs.existsSync(absolute);
  fs.mkdirSync(path.dirname(absolute), { recursive: true });
  fs.writeFileSync(absolute, content);
  const audit = { id: randomUUID(), ts: new Date().toISOString(), event: 'write', path: absolute, changeType: existed ? 'modified' : 'created', taint: ['untrusted'], writer: `live:file-write:${request.id}` };
  const auditLog = path.join(projectRoot, '.mlld', 'sec', 'audit.jsonl');
  fs.mkdirSync(path.dirname(auditLog), { recursive: true });
  fs.appendFileSync(auditLog, `${JSON.stringify(audit)}\n`);
  const provenance = { sourceType: 'mlld_execution', sourceId: String(request.id), scriptPath: request.filePath };
  await signatures.sign(absolute, request.environment.getSignerIdentity(), { taint: ['untrusted'], provenance });
  return signatures.check(absolute);
}

// ---- parameters: as the live engine reads them ----------------------------------------------------------------------

function isRecord(value) {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function text(value) {
  return typeof value === 'string' ? value : undefined;
}

function mode(value) {
  return value === 'strict' || value === 'markdown' ? value : undefined;
}

/** Script text named by a path without a telling extension is markdown, unless MLLD_STRICT says otherwise. */
function processMode(params, filePath) {
  const explicit = mode(params.mode);
  if (explicit || filePath === undefined || /\.(mld|md)$/i.test(filePath)) return explicit;
  return /^(1|true|strict)$/i.test(process.env.MLLD_STRICT ?? '') ? undefined : 'markdown';
}

function pick(value, wanted) {
  if (!isRecord(value)) return undefined;
  const kept = Object.fromEntries(Object.entries(value).filter(([, item]) => wanted(item)));
  return Object.keys(kept).length > 0 ? kept : undefined;
}

function labels(value) {
  const lists = pick(value, Array.isArray);
  if (!lists) return undefined;
  const cleaned = Object.entries(lists).map(([field, list]) => [field, [...new Set(list.filter((label) => typeof label === 'string').map((label) => label.trim()).filter(Boolean))]]);
  return pick(Object.fromEntries(cleaned), (list) => list.length > 0);
}

function failsUnanswered(value) {
  if (value === undefined || value === 'tell') return false;
  if (value === 'fail') return true;
  throw new Refusal('INVALID_REQUEST', "onCommandFailure must be 'tell' or 'fail'");
}

function timeout(value) {
  if (value === undefined) return undefined;
  if (typeof value !== 'number' || !(value > 0) || value > LONGEST_TIMEOUT_MS) {
    throw new Refusal('INVALID_REQUEST', `timeoutMs must be a number above 0 and at most ${LONGEST_TIMEOUT_MS}, got ${JSON.stringify(value)}`);
  }
  return Math.ceil(value);
}

// ---- methods the package does not export: asked of the package's own `live --stdio`, started when first needed ---------

// What only reads is asked once more when the engine behind ended before it answered: what a script leaves behind is
// killed when its engine is given back, and that engine may be among it.
const READS = new Set(['fs:status', 'sig:verify']);

class Delegate {
  constructor(cli) {
    this.cli = cli;
    this.waiting = new Map();
    this.nextId = 1;
  }

  ask(method, params, again = READS.has(method)) {
    const child = this.child ?? this.start();
    clearTimeout(this.idle);
    return new Promise((resolve, reject) => {
      const id = this.nextId++;
      this.waiting.set(id, { resolve, reject, method, again: again && (() => this.ask(method, params, false).then(resolve, reject)) });
      child.stdin.write(`${JSON.stringify({ method, id, params })}\n`);
    });
  }

  start() {
    const child = spawn(process.execPath, [this.cli, 'live', '--stdio'], { cwd: home, stdio: ['pipe', 'pipe', 'inherit'] });
    this.child = child;
    child.stdin.on('error', () => {});
    child.on('error', (error) => this.ended(error.message));
    child.on('exit', (code, signal) => this.ended(`exit ${signal ?? code}`));
    readline.createInterface({ input: child.stdout, crlfDelay: Infinity }).on('line', (line) => this.answered(line));
    return child;
  }

  answered(line) {
    let message;
    try {
      message = JSON.parse(line);
    } catch {
      return;
    }
    const { id, answer } = unwrap(message);
    const asked = this.waiting.get(id);
    if (!asked) return;
    this.waiting.delete(id);
    if (this.waiting.size === 0) this.idle = setTimeout(() => this.child?.stdin.end(), DELEGATE_IDLE_MS).unref();
    if (!answer?.error && /"\[\+\d+ more items\]"|\.\.\. \[truncated \d+ chars\] \.\.\./.test(line)) {
      asked.reject(new Refusal('TRUNCATED', `The answer of '${asked.method}' is longer than the live engine behind it can carry; ask for less (a narrower glob)`));
    } else {
      asked.resolve(answer);
    }
  }

  ended(how) {
    this.child = undefined;
    const lost = [...this.waiting.values()];
    this.waiting.clear();
    for (const { reject, method, again } of lost) {
      if (again) again();
      else reject(new Refusal('ENGINE_UNAVAILABLE', `The live engine that serves '${method}' ended (${how}); try again`));
    }
  }
}

/** The id and the answer of a live engine's line, in either dialect: `{result: {id, ...}}` (2.0) or `{id, result, error}` (2.1). */
function unwrap(message) {
  if (message?.id === undefined) {
    const { id, value, ...rest } = message?.result ?? {};
    return { id, answer: value === undefined ? rest : value };
  }
  if (message.error) return { id: message.id, answer: { error: message.error } };
  if (!isRecord(message.result) || message.result.id !== message.id) return { id: message.id, answer: message.result };
  const { id, ...rest } = message.result;
  return { id, answer: rest };
}

// ---- life and death -------------------------------------------------------------------------------------------------

function report(what, error) {
  process.stderr.write(`mlld bridge: ${what}: ${error?.stack ?? error}\n`);
}

/** A script's stray exception is that request's failure when its origin is known; it is always reported, never fatal. */
function surviveScripts() {
  process.on('unhandledRejection', (reason) => {
    // The package itself leaves one rejected promise behind for every failed or cancelled run; those are answered already.
    if (!(reason instanceof Refusal || answered.has(reason))) report('a promise of a script was rejected and nobody handled it', reason);
  });
  process.on('uncaughtException', (error) => {
    report('an exception escaped from a script', error);
    const { code, ...described } = describeError(error);
    running.getStore()?.stop(error, { code: 'UNCAUGHT_EXCEPTION', ...described });
  });
  process.exit = (code) => {
    const error = new Refusal('PROCESS_EXIT', `The script called process.exit(${code ?? ''})`);
    report(error.message, 'the engine goes on');
    running.getStore()?.stop(error, { code: error.code, message: error.message });
    throw error;
  };
}

function shutdown(lost) {
  if (stopping) return;
  stopping = true;
  const error = { code: 'ABORTED', message: 'The engine is shutting down' };
  for (const request of [...active.values()]) request.stop(new Refusal(error.code, error.message), error);
  delegate?.child?.stdin.end();
  channel.finish(FLUSH_MS, () => reallyExit(lost ? 1 : 0));
}

function unusable(what, hint) {
  process.stderr.write(`mlld bridge: ${what}\nhint: ${hint}\n`);
  reallyExit(EXIT_UNUSABLE);
}

function privateDescriptor(name) {
  const value = process.env[name];
  delete process.env[name];
  return /^\d+$/.test(value ?? '') ? Number(value) : undefined;
}

async function main() {
  const requestFd = privateDescriptor('MLLD_ENGINE_REQUEST_FD');
  const responseFd = privateDescriptor('MLLD_ENGINE_RESPONSE_FD');
  const directory = process.env.MLLD_OTP_BRIDGE_PACKAGE;
  if (Number(process.versions.node.split('.')[0]) < OLDEST_NODE) return unusable(`Node ${process.versions.node} is too old`, `use Node ${OLDEST_NODE} or newer`);
  const byHand = 'start the bridge through mlld_sdk (engine="bridge"), not by hand';
  if (requestFd === undefined || responseFd === undefined) return unusable('MLLD_ENGINE_REQUEST_FD and MLLD_ENGINE_RESPONSE_FD must name two open pipes', byHand);
  if (!directory) return unusable('MLLD_OTP_BRIDGE_PACKAGE must name the directory of the installed mlld package', byHand);
  try {
    home = process.cwd();
  } catch (error) {
    return unusable(`the working directory is gone: ${error.message}`, 'start the engine in a directory that exists');
  }
  try {
    channel = new Channel(requestFd, responseFd);
  } catch (error) {
    return unusable(`MLLD_ENGINE_REQUEST_FD and MLLD_ENGINE_RESPONSE_FD must name two open pipes: ${error.message}`, byHand);
  }
  // A host that was itself started by an mlld may hand these down; they would silence `stream:*` and `streaming:*` events.
  delete process.env.MLLD_NO_STREAM;
  delete process.env.MLLD_NO_STREAMING;
  process.env.MLLD_STREAMING = 'false'; // output belongs into the result, not on this process's stdout; events are not affected
  try {
    mlld = await loadPackage(directory, taps);
  } catch (error) {
    const hint = error instanceof LayoutError ? 'this bridge knows mlld 2.0.5 and 2.1.0; use one of these, or engine="live"' : 'check the installation: mlld --version should work; or use engine="live"';
    return unusable(`the mlld package in ${directory} cannot be used: ${error.message}`, hint);
  }
  delegate = mlld.cli && new Delegate(mlld.cli);
  surviveScripts();
  for (const signal of ['SIGTERM', 'SIGINT']) process.on(signal, () => shutdown(false));
  channel.open(onLine, shutdown);
}

main().catch((error) => unusable(`failed to start: ${error.stack}`, 'report this'));
