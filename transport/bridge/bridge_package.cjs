'use strict';
// The user's installed mlld package, loaded into this process through what it exports, and checked before it is used.
//
// `execute` is the only door into the interpreter that the package exports. Three things the extended protocol needs lie
// behind it, and are reached through objects the package itself hands out: the environment of a finished run gives the
// classes of environment and hook manager, whose methods are wrapped here. A package whose objects look otherwise is refused
// by name (LayoutError): better no engine than one that silently carries less than it announces.

const fs = require('node:fs');
const path = require('node:path');

const { answerOf, collected, insideOperation, isNothing, programOf, watchCommand, watchProcesses } = require('./bridge_commands.cjs');

class LayoutError extends Error {}

const EXPORTS = ['execute', 'analyzeModule', 'NodeFileSystem', 'PathContextBuilder'];
const ENVIRONMENT = ['cleanup', 'enableSDKEvents', 'setCheckpointManagerFactory', 'getCheckpointManager', 'getCheckpointScriptResumeMode', 'hasCheckpointResumeOverride', 'getHookManager', 'setDynamicModuleMode', 'getSigService', 'getSignerIdentity', 'withOpContext'];
const STEPS = ['createChild', 'executeCode', 'executeCommand']; // what every loop round, block and command passes through

/** Wrap a method so that `before` sees every call first. */
function watch(prototype, name, before) {
  const original = prototype[name];
  prototype[name] = function watched(...args) {
    before(this, args);
    return original.apply(this, args);
  };
}

/** Find out which calls of `llm` functions give no answer. */
function watchModelCalls(environment, errors, taps) {
  watchProcesses();
  watch(errors, 'collectError', (_self, [error]) => collected(error));
  const { withOpContext, executeCommand, executeCode } = environment;
  environment.withOpContext = function watchedOperation(operation, body) {
    return withOpContext.call(this, operation, () => insideOperation(operation, body));
  };
  environment.executeCommand = function watchedCommand(command, options, context) {
    const what = { program: programOf(command), labels: context?.exeLabels };
    return watchCommand(what, () => executeCommand.call(this, command, options, context), taps.unanswered);
  };
  environment.executeCode = function watchedCode(code, language, ...more) {
    return watchCommand({ program: language, language }, () => executeCode.call(this, code, language, ...more), taps.unanswered);
  };
}

/** Take back a decision to serve what is no answer, which another engine has stored. */
function withoutNothing(decision) {
  const { checkpointHit, cachedResult, ...rest } = decision?.metadata ?? {};
  if (checkpointHit !== true || !isNothing(cachedResult)) return decision;
  return { ...decision, action: 'continue', metadata: { ...rest, checkpointHit: false } };
}

/** A file system in which one read of `filePath` yields `script`; everything else is the real one. */
function withScript(fileSystem, filePath, script) {
  const view = Object.create(fileSystem);
  let given = false;
  view.readFile = async (target, ...rest) => {
    if (given || target !== filePath) return fileSystem.readFile(target, ...rest);
    given = true;
    return script;
  };
  return view;
}

/**
 * Load the package in `directory`.
 *
 * `taps` are called inside the asynchronous context of the run they belong to: `setup(environment)` before a script's first step,
 * `emitter(emitter)` as soon as there is something to listen to, `step()` before every operation (it may throw to stop the
 * script), `decided(operation, decision, inputs, environment)` after the cache was asked, `unanswered(what)` when a command in an
 * `llm` function has failed (it may throw, too) or such a function came to nothing.
 */
async function loadPackage(directory, taps) {
  const manifest = JSON.parse(fs.readFileSync(path.join(directory, 'package.json'), 'utf8'));
  const entry = manifest.exports?.['.']?.require?.default ?? manifest.main;
  if (typeof entry !== 'string') throw new LayoutError(`${directory}/package.json names no CommonJS entry`);
  const mlld = require(path.resolve(directory, entry));
  const absent = EXPORTS.filter((name) => typeof mlld[name] !== 'function');
  if (absent.length > 0) throw new LayoutError(`mlld ${manifest.version} does not export ${absent.join(', ')}`);

  const newFileSystem = () => new mlld.NodeFileSystem();
  const first = await mlld.execute(undefined, undefined, { mode: 'strict', noCheckpoint: true, fileSystem: withScript(newFileSystem(), undefined, '') });
  const environment = first?.environment;
  const unknown = [...ENVIRONMENT, ...STEPS].filter((name) => typeof environment?.[name] !== 'function');
  if (unknown.length > 0) throw new LayoutError(`the environment of mlld ${manifest.version} has no ${unknown.join(', ')}`);
  const hooks = environment.getHookManager();
  const lacking = ['runPre', 'runPost'].filter((name) => typeof hooks?.[name] !== 'function');
  if (lacking.length > 0) throw new LayoutError(`the hook manager of mlld ${manifest.version} has no ${lacking.join(', ')}`);
  if (typeof environment.errorUtils?.collectError !== 'function') throw new LayoutError(`mlld ${manifest.version} collects no errors of commands`);

  watch(Object.getPrototypeOf(environment), 'setCheckpointManagerFactory', (self) => taps.setup(self));
  watch(Object.getPrototypeOf(environment), 'enableSDKEvents', (_self, [emitter]) => taps.emitter(emitter));
  for (const name of STEPS) watch(Object.getPrototypeOf(environment), name, () => taps.step());
  watchModelCalls(Object.getPrototypeOf(environment), Object.getPrototypeOf(environment.errorUtils), taps);
  const prototype = Object.getPrototypeOf(hooks);
  const { runPre, runPost } = prototype;
  prototype.runPre = async function watchedRunPre(node, inputs, env, operation) {
    taps.step();
    const decision = withoutNothing(await runPre.call(this, node, inputs, env, operation));
    if (typeof decision?.metadata?.checkpointKey === 'string') taps.decided(operation, decision, inputs, env);
    return decision;
  };
  prototype.runPost = function watchedRunPost(node, result, inputs, env, operation) {
    const { own, failed, nothing } = answerOf(operation, result?.value);
    if (own && !operation.metadata?.checkpointHit && (failed || nothing)) {
      if (!failed) taps.unanswered({ function: own.name, command: '', returncode: null, said: '' });
      if (operation.metadata) delete operation.metadata.checkpointKey; // what has no key is not stored
    }
    return runPost.call(this, node, result, inputs, env, operation);
  };

  const cli = path.join(directory, 'dist', 'cli.cjs');
  return {
    version: manifest.version,
    checkpointRoot: defaultCheckpointRoot(path.resolve(directory, entry), manifest.version),
    cli: fs.existsSync(cli) ? cli : undefined,
    newFileSystem,
    withScript,
    execute: mlld.execute,
    analyze: mlld.analyzeModule,
    pathContext: (scriptPath, fileSystem) => mlld.PathContextBuilder.fromFile(scriptPath, fileSystem)
  };
}

/** What stands in a program behind the first place that begins a word with `mark`. */
function textBehind(code, mark) {
  let at = code.indexOf(mark);
  while (at > 0 && /\w/.test(String.fromCharCode(code[at - 1]))) at = code.indexOf(mark, at + 1);
  return at < 0 ? '' : code.toString('latin1', at + mark.length, at + mark.length + 200);
}

/** Where the package keeps its caches unless told, as its own command line and live engine do: it says so, or its version does. */
function defaultCheckpointRoot(entry, version) {
  const code = fs.readFileSync(entry); // megabytes: searched as they are
  const said = /\.join\((?:"([^"]+)"|(\w+)), "checkpoints"\)/.exec(textBehind(code, 'DEFAULT_CACHE_ROOT = '));
  const folder = said?.[1] ?? (said && /^"([^"]+)"/.exec(textBehind(code, `${said[2]} = `))?.[1]);
  if (folder) return path.join(folder, 'checkpoints');
  const [major, minor, patch] = version.split('.').map((part) => Number.parseInt(part, 10));
  const moved = major > 2 || (major === 2 && (minor > 0 || patch > 5));
  return path.join(moved ? '.llm' : '.mlld', 'checkpoints');
}

/** The first argument of a call as the cache's own index shows it. */
function argsPreview(inputs, environment) {
  const plain = inputs.map((input) => {
    const value = input && typeof input === 'object' && 'name' in input && 'source' in input && 'value' in input ? input.value : input;
    const structured = value && typeof value === 'object' && value[Symbol.for('mlld.StructuredValue')] === true;
    return structured ? value.data : value;
  });
  const build = environment.getCheckpointManager()?.constructor?.buildArgsPreview;
  return typeof build === 'function' ? build(plain) : typeof plain[0] === 'string' ? plain[0].slice(0, 160) : '';
}

module.exports = { LayoutError, argsPreview, loadPackage };
