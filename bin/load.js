// Loads a CommonJS file with what V8 compiled of it in an earlier run. Node's own cache has what is compiled when a file is loaded, and
// none of the functions that are compiled when they are called; this has all that ran.
const { mkdirSync, readdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } =
  process.getBuiltinModule("fs");
const { createRequire } = process.getBuiltinModule("module");
const { dirname, join } = process.getBuiltinModule("path");
const vm = process.getBuiltinModule("vm");

const CHECKSUM_BYTES = 4;
const LONGEST_KEPT_MS = 30 * 24 * 3600 * 1000;

/**
 * @param {string} file the CommonJS file
 * @param {string | undefined} directory where code is kept: the user's own, as whoever writes there decides what runs
 * @param {string} purpose runs of one purpose use about the same functions, and share what is kept
 * @returns {{ exports: any, keep: () => void }} `keep` is called when everything ran; it never throws
 */
export function load(file, directory, purpose) {
  const { size, mtimeMs, ctimeMs, ino } = statSync(file);
  // V8 refuses what another version of it made, but compares no more of the source than its length, and fails on damaged code.
  const name = [purpose, process.version, process.arch, size, mtimeMs, ctimeMs, ino].join("-");
  const cachedData = directory && readWhole(join(directory, name));
  const source = readFileSync(file, "latin1");
  const script = new vm.Script(`(function (exports, require, module, __filename, __dirname) {${source}\n})`, {
    filename: file,
    cachedData,
    importModuleDynamically: vm.constants.USE_MAIN_CONTEXT_DEFAULT_LOADER,
  });
  const isNew = directory && (!cachedData || script.cachedDataRejected);
  // What was called long ago, V8 forgets before it can be kept: the file's own function too, for which it then reads all of the file again.
  if (isNew) process.getBuiltinModule("v8").setFlagsFromString("--no-flush-bytecode");
  const module = { exports: {} };
  script.runInThisContext()(module.exports, createRequire(file), module, file, dirname(file));
  const keep = () => {
    if (!isNew) return;
    try {
      mkdirSync(directory, { recursive: true });
      removeOld(directory, `${purpose}-`);
      const unfinished = join(directory, `${name}.${process.pid}`);
      // V8 refuses what was made with other flags.
      process.getBuiltinModule("v8").setFlagsFromString("--flush-bytecode");
      const data = script.createCachedData();
      writeFileSync(unfinished, Buffer.concat([data, checksum(data)]), { flush: true });
      renameSync(unfinished, join(directory, name));
    } catch {
      // Without it the next run is slower, and no different.
    }
  };
  return { exports: module.exports, keep };
}

/** Several versions of mvmctl may be in use; of those that are not, nothing stays for ever. */
function removeOld(directory, prefix) {
  for (const name of readdirSync(directory)) {
    const path = join(directory, name);
    if (name.startsWith(prefix) && statSync(path).mtimeMs < Date.now() - LONGEST_KEPT_MS) rmSync(path);
  }
}

/** What was kept, unless it is damaged or not there. */
function readWhole(path) {
  try {
    const file = readFileSync(path);
    const data = file.subarray(0, -CHECKSUM_BYTES);
    return file.subarray(-CHECKSUM_BYTES).equals(checksum(data)) ? data : undefined;
  } catch {
    return undefined;
  }
}

/** Of one word in 64 bytes: what a disk loses, it loses by the sector, and all words would take 2 ms. */
function checksum(data) {
  const words = new DataView(data.buffer, data.byteOffset, data.length);
  let sum = data.length;
  for (let at = 0; at + 4 <= data.length; at += 64) sum = (Math.imul(sum, 31) + words.getInt32(at)) | 0;
  const bytes = Buffer.alloc(CHECKSUM_BYTES);
  bytes.writeInt32BE(sum);
  return bytes;
}
