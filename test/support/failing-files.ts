import fs from "node:fs";
import { syncBuiltinESMExports } from "node:module";

const CALLS = [
  "openSync",
  "closeSync",
  "writeSync",
  "fsyncSync",
  "readFileSync",
  "writeFileSync",
  "mkdirSync",
  "readdirSync",
  "renameSync",
  "rmSync",
  "statSync",
  "lstatSync",
  "statfsSync",
  "readlinkSync",
  "symlinkSync",
] as const;

/**
 * Stands in for a file system that fails: while `work` runs, the `nth` file call below `directory` (calls on open files
 * count, too) throws an error of this code. Returns whether there was such a call.
 */
export async function failNthFileCall(
  nth: number,
  code: string,
  directory: string,
  work: () => unknown,
): Promise<boolean> {
  let count = 0;
  const isOurs = (first: unknown) => (typeof first === "number" ? first > 2 : String(first).startsWith(directory));
  await failFileCalls((_name, first) => isOurs(first) && ++count === nth, code, work);
  return count >= nth;
}

/** The same, for each call that `fails` chooses by its name and first argument. */
export async function failFileCalls(
  fails: (name: string, first: unknown) => boolean,
  code: string,
  work: () => unknown,
): Promise<void> {
  const real = Object.fromEntries(CALLS.map((name) => [name, fs[name]]));
  /** Node's readFileSync closes what it opened, wherever that is, with the function that everybody can see. */
  let isInside = false;
  for (const name of CALLS) {
    const call = real[name] as (...args: unknown[]) => unknown;
    (fs as unknown as Record<string, unknown>)[name] = (...args: unknown[]) => {
      const [first] = args;
      if (!isInside && fails(name, first)) {
        if (name === "closeSync") call(...args);
        throw Object.assign(new Error(`${code}: injected, ${name} '${String(first)}'`), { code, syscall: name });
      }
      if (isInside) return call(...args);
      isInside = true;
      try {
        return call(...args);
      } finally {
        isInside = false;
      }
    };
  }
  syncBuiltinESMExports();
  try {
    await work();
  } finally {
    Object.assign(fs, real);
    syncBuiltinESMExports();
  }
}
