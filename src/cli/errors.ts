import { constants } from "node:os";
import { CommanderError } from "commander";
import { MvmError } from "../core/errors.ts";
import type { Style } from "./cli.ts";

/** Ctrl+C, `kill`, or a closed terminal: exit codes are 128 + the signal's number, as a shell expects. */
export class Cancelled extends Error {
  readonly exitCode: number;
  constructor(signal: NodeJS.Signals) {
    super(`stopped by ${signal}`);
    this.exitCode = 128 + constants.signals[signal];
  }
}

/** Who read our output wants no more of it (`| head`): no error, and a reason to stop. */
export class OutputClosed extends Error {}

/** Wrong usage: what was typed makes no sense, and nothing was done. */
export class UsageError extends MvmError {
  constructor(message: string, hint: string) {
    super("USAGE", message, { hint });
  }
}

/** Codes of errors that say "what you typed is wrong" rather than "it did not work". */
const USAGE_CODES = new Set([
  "USAGE",
  "INVALID_NAME",
  "INVALID_SIZE",
  "INVALID_DURATION",
  "INVALID_PORT",
  "INVALID_VOLUME",
  "INVALID_FLAKE",
  "INVALID_PATH",
  "UNKNOWN_PRESET",
  "UNKNOWN_HYPERVISOR",
  "INVALID_REVISION",
  "INVALID_SETTINGS",
  "INVALID_ROLES",
]);

/** What a shell says of a command that is not there, or can't be executed (POSIX, 2.8.2). */
const SHELL_CODES: Readonly<Record<string, number>> = { COMMAND_NOT_FOUND: 127, COMMAND_FAILED: 126 };

export function exitCodeOf(error: unknown): number {
  if (error instanceof Cancelled) return error.exitCode;
  if (error instanceof OutputClosed) return 0;
  if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2;
  if (!(error instanceof MvmError)) return 1;
  return USAGE_CODES.has(error.code) ? 2 : (SHELL_CODES[error.code] ?? 1);
}

/** An error in words: what failed and why, the evidence, and what to type next. */
export function renderError(error: unknown, style: Style, debug: boolean): string {
  if (error instanceof Cancelled) return `${error.message}\n`;
  if (!(error instanceof MvmError)) {
    const stack = error instanceof Error ? error.stack : String(error);
    return `${style.red("error:")} this is a bug in mvmctl\n${stack}\n`;
  }
  const lines = [`${style.red("error:")} ${error.message}`];
  if (error.detail) lines.push(...error.detail.split("\n").map((line) => style.dim(`  ${line}`)));
  if (error.hint) lines.push(`${style.yellow("hint:")} ${error.hint}`);
  if (debug) lines.push(...stacksOf(error));
  return `${lines.join("\n")}\n`;
}

function stacksOf(error: unknown): string[] {
  if (!(error instanceof Error)) return [];
  return [error.stack ?? error.message, ...stacksOf(error.cause)];
}

/** The same for programs. */
export function errorJson(error: unknown): string {
  if (error instanceof MvmError) {
    const { code, message, detail, hint } = error;
    return `${JSON.stringify({ error: { code, message, detail, hint } })}\n`;
  }
  const code = error instanceof Cancelled ? "CANCELLED" : "BUG";
  return `${JSON.stringify({ error: { code, message: error instanceof Error ? error.message : String(error) } })}\n`;
}
