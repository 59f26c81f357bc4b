'use strict';
// The user's installed mlld package, loaded into this process through what it exports, and checked before it is used.
//
// `execute` is the only door into the interpreter that the package exports. Three things the extended protocol needs lie
// behind it, and are reached through objects the package itself hands out: the environment of a finished run gives the
// classes of environment and hook manager, whose methods are wrapped here. A package whose objects look otherwise is refused
// by name (LayoutError): better no engine than one that silently carries less than it announces.

const fs = require('node:fs');
const path = require('node:path');

class LayoutError extends Error {}

const EXPORTS = ['execute', 'analyzeModule', 'NodeFileSystem', 'PathContextBuilder'];
const ENVIRONMENT = ['cleanup', 'enableSDKEvents', 'setCheckpointManagerFactory', 'getCheckpointManager', 'getCheckpointScriptResumeMode', 'hasCheckpointResumeOverride', 'getHookManager', 'setDynamicModuleMode', 'getSigService', 'getSignerIdentity'];
const STEPS = ['createChild', 'executeCode', 'executeCommand']; // what every loop round, block and command passes through

/** Wrap a method so that `before` sees every call first. */
function watch(prototype, name, before) {
  const original = prototype[name];
  prototype[name] = function watched(...args) {
    before(this, args);
    return original.apply(this, args);
  };
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
 * script), `decided(operation, decision, inputs, environment)` after the cache was asked.
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
  if (typeof hooks?.runPre !== 'function') throw new LayoutError(`the hook manager of mlld ${manifest.version} has no runPre`);

  watch(Object.getPrototypeOf(environment), 'setCheckpointManagerFactory', (self) => taps.setup(self));
  watch(Object.getPrototypeOf(environment), 'enableSDKEvents', (_self, [emitter]) => taps.emitter(emitter));
  for (const name of STEPS) watch(Object.getPrototypeOf(environment), name, () => taps.step());
  const prototype = Object.getPrototypeOf(hooks);
  const runPre = prototype.runPre;
  prototype.runPre = async function watchedRunPre(node, inputs, env, operation) {
    taps.step();
    const decision = await runPre.call(this, node, inputs, env, operation);
    if (typeof decision?.metadata?.checkpointKey === 'string') taps.decided(operation, decision, inputs, env);
    return decision;
  };

  const cli = path.join(directory, 'dist', 'cli.cjs');
  return {
    version: manifest.version,
    checkpointRoot: defaultCheckpointRoot(manifest.version),
    cli: fs.existsSync(cli) ? cli : undefined,
    newFileSystem,
    withScript,
    execute: mlld.execute,
    analyze: mlld.analyzeModule,
    pathContext: (scriptPath, fileSystem) => mlld.PathContextBuilder.fromFile(scriptPath, fileSystem)
  };
}

/** Where this version keeps its caches unless told: the same place as its own command line and live engine. */
function defaultCheckpointRoot(version) {
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
