'use strict';
// Which calls of `llm` functions gave no answer: a command in them failed, or they came to nothing (docs/extended-protocol.md,
// section 7). The interpreter takes what a failed command has printed for its value, and stores it; here is known what it was.

const { AsyncLocalStorage } = require('node:async_hooks');
const childProcess = require('node:child_process');
const os = require('node:os');

const MOST_TOLD = 100; // calls a result lists; each is an event all the same
const LONGEST_LINE = 500;
const TAIL_LENGTH = 4096;
const SHELLS = new Set(['sh', 'bash', 'shell', 'py', 'python']); // code that runs as a command; other code fails its script itself

const calls = new AsyncLocalStorage(); // the innermost `llm` function whose body is being run
const commands = new AsyncLocalStorage(); // the command of it that is being run

/** Run the body of an operation; a call of an `llm` function notes whether a command in it fails. */
function insideOperation(operation, body) {
  if (!operation?.labels?.includes?.('llm')) return body();
  return calls.run({ name: operation.name || operation.type, operation, outer: calls.getStore(), failed: false }, body);
}

/** Whether what an operation gives is an answer: no command in it has failed, and it came to something. */
function answerOf(operation, value) {
  const call = calls.getStore();
  const own = call?.operation === operation ? call : undefined;
  return { own, failed: own?.failed === true, nothing: isNothing(value) };
}

/** Null, or a text of nothing but white space. */
function isNothing(value) {
  let plain = value && typeof value === 'object' && 'name' in value && 'source' in value && 'value' in value ? value.value : value;
  if (plain && typeof plain === 'object' && plain[Symbol.for('mlld.StructuredValue')] === true) plain = plain.data;
  return plain === null || plain === undefined || (typeof plain === 'string' && plain.trim() === '');
}

/**
 * Run a command for an `llm` function and find out whether it failed; `labels` are those of the function the interpreter says it
 * is for. `failed(unanswered)` is called before its value is handed on, and may throw.
 */
async function watchCommand({ program, language, labels }, run, failed) {
  const call = calls.getStore() ?? (labels?.includes?.('llm') ? { name: '', failed: false } : undefined);
  if (!call || (language !== undefined && !SHELLS.has(language.trim().toLowerCase()))) return run();
  const seen = { error: undefined, code: 0, signal: null, stdout: '', stderr: '' };
  const value = await commands.run(seen, run);
  if (seen.error === undefined && !seen.code && !seen.signal) return value;
  for (let one = call; one; one = one.outer) one.failed = true;
  const details = seen.error?.details ?? {};
  failed({
    function: call.name,
    command: program,
    returncode: seen.signal ? -os.constants.signals[seen.signal] : seen.code || details.exitCode || 1,
    said: lastLine(seen.stderr) || lastLine(seen.stdout) || lastLine(details.stderr) || lastLine(details.stdout)
  });
  return value;
}

/** Note an error that the interpreter puts aside instead of raising it. */
function collected(error) {
  const seen = commands.getStore();
  if (seen && seen.error === undefined) seen.error = error ?? new Error('it failed');
}

/** Watch how the processes end that the package starts: it takes one that a signal has ended for one that went well. */
function watchProcesses() {
  const spawn = childProcess.spawn;
  childProcess.spawn = function watchedSpawn(...args) {
    const child = spawn.apply(this, args);
    const seen = commands.getStore();
    if (seen) {
      for (const pipe of ['stdout', 'stderr']) {
        child[pipe]?.on('data', (piece) => {
          seen[pipe] = (seen[pipe] + piece.slice(-TAIL_LENGTH)).slice(-TAIL_LENGTH);
        });
      }
      child.once('exit', (code, signal) => {
        seen.code = seen.code || code || 0;
        seen.signal = seen.signal ?? signal;
      });
    }
    return child;
  };
}

/** The program of a command line, without what is set for it in front and without its arguments, which may hold secrets. */
function programOf(command) {
  return String(command).trim().split(/\s+/).find((word) => !word.includes('=')) ?? '';
}

/** The last line of a text, unless it is Node's own, which has the whole command in it. */
function lastLine(text) {
  const line = String(text ?? '').trim().split('\n').pop().trim();
  return line.startsWith('Command failed') ? '' : line.slice(0, LONGEST_LINE);
}

function messageOf({ function: name, command, returncode, said }) {
  const signal = returncode < 0 && Object.entries(os.constants.signals).find(([, number]) => number === -returncode);
  const how = returncode < 0 ? `was ended by ${signal ? signal[0] : `signal ${-returncode}`}` : `exited with status ${returncode}`;
  return `${name && `@${name}: `}${command} ${how}${said ? `: ${said}` : ''}`;
}

module.exports = { MOST_TOLD, answerOf, collected, insideOperation, isNothing, messageOf, programOf, watchCommand, watchProcesses };
