/** An error a person can act on. Everything else that is thrown is a bug and is shown with its stack. */
export class MvmError extends Error {
  /** Stable and upper-case, for scripts and tests: `TEMPLATE_NOT_FOUND`. */
  readonly code: string;
  /** What to type or do next. */
  readonly hint: string | undefined;
  /** Longer evidence, shown below the message: the last lines of a log, a compiler's output. */
  readonly detail: string | undefined;

  constructor(code: string, message: string, options: { hint?: string; cause?: unknown; detail?: string } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = "MvmError";
    this.code = code;
    this.hint = options.hint;
    this.detail = options.detail;
  }
}

/** True for a Node system error with one of these codes (`ENOENT`, `EEXIST`, …). */
export function isErrno(error: unknown, ...codes: string[]): error is NodeJS.ErrnoException {
  return error instanceof Error && "code" in error && codes.includes(String(error.code));
}

/** The first line of what an unknown thrown value says. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** Turns a failed file call into an error that names the path and what helps; other errors pass through. */
export function fileError(error: unknown, path: string, doing: string): unknown {
  if (!isErrno(error, "ENOSPC", "EDQUOT", "EACCES", "EPERM", "EROFS", "EMFILE", "ENFILE", "EIO", "ENOTDIR", "EISDIR")) {
    return error;
  }
  const hints: Record<string, string> = {
    ENOSPC: "free some space, or set MVM_DATA_DIR to a larger file system",
    EDQUOT: "the disk quota is used up: free some space, or set MVM_DATA_DIR to another file system",
    EACCES: "check who owns the path, or set MVM_DATA_DIR to a directory of yours",
    EPERM: "check who owns the path, or set MVM_DATA_DIR to a directory of yours",
    EROFS: "set MVM_DATA_DIR to a writable file system",
  };
  const hint = hints[error.code ?? ""];
  const code = error.code === "ENOSPC" || error.code === "EDQUOT" ? "DISK_FULL" : "FILE_FAILED";
  return new MvmError(code, `could not ${doing} ${path}: ${describeErrno(error)}`, {
    cause: error,
    ...(hint ? { hint } : {}),
  });
}

function describeErrno(error: NodeJS.ErrnoException): string {
  switch (error.code) {
    case "ENOSPC":
      return "no space left on the device";
    case "EACCES":
    case "EPERM":
      return "permission denied";
    case "EROFS":
      return "the file system is read-only";
    case "EMFILE":
    case "ENFILE":
      return "too many open files";
    default:
      return error.message;
  }
}
