import { lastLines } from "../core/text.ts";

/** What a person wants to know while Nix works. */
export type NixEvent =
  /** `machine` is the builder's store, for what is not built here. */
  | { readonly kind: "build"; readonly name: string; readonly machine?: string }
  /** A builder can't be used; Nix takes another one, or builds here. */
  | { readonly kind: "builder-failed"; readonly why: string }
  | { readonly kind: "fetch"; readonly name: string }
  | { readonly kind: "log"; readonly line: string };

/** Activity and result numbers of Nix's internal-json log (src/libutil/logging.hh in Nix). */
const ACTIVITY_FILE_TRANSFER = 101;
const ACTIVITY_BUILD = 105;
const ACTIVITY_SUBSTITUTE = 108;
const RESULT_BUILD_LOG_LINE = 101;
const LEVEL_ERROR = 0;

const BUILD_LOG_LINES = 15;

/** Reads `nix --log-format internal-json` line by line. */
export class NixLog {
  /** The last lines that builders printed. */
  readonly buildLog: string[] = [];
  readonly #errors: string[] = [];
  readonly #onEvent: ((event: NixEvent) => void) | undefined;

  constructor(onEvent?: (event: NixEvent) => void) {
    this.#onEvent = onEvent;
  }

  /** Nix's error messages, without colours. */
  errorText(): string {
    return this.#errors.join("\n");
  }

  push(line: string): void {
    if (!line.startsWith("@nix ")) {
      if (line.trim() !== "") this.#errors.push(clean(line));
      return;
    }
    const message = parse(line.slice("@nix ".length));
    if (message) this.#take(message);
  }

  #take(message: Record<string, unknown>): void {
    const { action, type, level, fields, text, msg } = message;
    const first = Array.isArray(fields) ? String(fields[0] ?? "") : "";
    if (action === "msg" && level === LEVEL_ERROR) this.#error(clean(String(msg)));
    if (action === "start" && type === ACTIVITY_BUILD) {
      const machine = Array.isArray(fields) ? String(fields[1] ?? "") : "";
      this.#onEvent?.({ kind: "build", name: storeName(first), ...(machine ? { machine } : {}) });
    }
    if (action === "start" && (type === ACTIVITY_SUBSTITUTE || type === ACTIVITY_FILE_TRANSFER)) {
      this.#onEvent?.({ kind: "fetch", name: storeName(first || String(text ?? "")) });
    }
    if (action === "result" && type === RESULT_BUILD_LOG_LINE) this.#buildLine(clean(first));
  }

  #error(text: string): void {
    this.#errors.push(text);
    if (/^cannot build on '/.test(text)) this.#onEvent?.({ kind: "builder-failed", why: text.replaceAll("\n", " ") });
  }

  #buildLine(line: string): void {
    this.buildLog.push(line);
    if (this.buildLog.length > BUILD_LOG_LINES) this.buildLog.shift();
    this.#onEvent?.({ kind: "log", line });
  }
}

function parse(json: string): Record<string, unknown> | undefined {
  try {
    return JSON.parse(json) as Record<string, unknown>;
  } catch {
    return undefined;
  }
}

function clean(text: string): string {
  return lastLines(text, Number.POSITIVE_INFINITY);
}

/** `/nix/store/HASH-hello-image.drv` → `hello-image`. */
function storeName(path: string): string {
  return (path.split("/").pop() ?? path).replace(/^[0-9a-z]{32}-/, "").replace(/\.drv$/, "");
}
