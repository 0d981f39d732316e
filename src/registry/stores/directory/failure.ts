import { MvmError } from "../../../core/errors.ts";

/** Something in the directory is not what a registry keeps there. */
export function unsafePath(name: string, expected: string): MvmError {
  return new MvmError("REGISTRY_UNSAFE_PATH", `${name} in the registry's directory is not ${expected}`, {
    hint: "a registry's directory holds no links, pipes or devices: see who put it there, and remove it",
  });
}

/** A failed file call in words of the registry; anything else passes through. */
export function directoryFailure(error: unknown, root: string, doing: string): unknown {
  const failure = error instanceof Error && "code" in error ? FAILURES.get(String(error.code)) : undefined;
  if (error instanceof MvmError || !failure) return error;
  const [code, why, hint] = failure;
  return new MvmError(code, `could not ${doing} in the registry ${root}: ${why}`, {
    hint: hint.replace("ROOT", root),
    cause: error,
  });
}

const WHO = "check who owns ROOT, and how it is mounted";
const MOUNT = "check that the file system of ROOT is mounted and its server answers";
const FAILURES = new Map<string, readonly [code: string, why: string, hint: string]>(
  Object.entries({
    ENOENT: ["REGISTRY_NO_BUCKET", "there is no such directory", "make it with `mkdir -p ROOT`, or mount it"],
    ENOTDIR: ["REGISTRY_NO_BUCKET", "it is not a directory", "name a directory"],
    EISDIR: ["REGISTRY_UNSAFE_PATH", "a directory is where a file should be", "remove it"],
    EACCES: ["REGISTRY_DENIED", "permission denied", WHO],
    EPERM: ["REGISTRY_DENIED", "permission denied", WHO],
    EROFS: ["REGISTRY_DENIED", "the file system is read-only", WHO],
    ENOSPC: ["REGISTRY_FULL", "no space left on the device", "free some space there; `mvmctl registry gc` may help"],
    EDQUOT: ["REGISTRY_FULL", "the disk quota is used up", "free some space there; `mvmctl registry gc` may help"],
    EIO: ["REGISTRY_UNREACHABLE", "the disk or its server failed", MOUNT],
    ESTALE: ["REGISTRY_UNREACHABLE", "the server of the file system no longer knows it", MOUNT],
    ETIMEDOUT: ["REGISTRY_UNREACHABLE", "the server of the file system does not answer", MOUNT],
    EMFILE: ["FILE_FAILED", "too many open files", "raise the limit with `ulimit -n`"],
    ENFILE: ["FILE_FAILED", "too many open files", "close some programs"],
  }),
);
