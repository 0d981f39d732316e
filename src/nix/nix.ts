import { existsSync, readFileSync } from "node:fs";
import type { NixSettings } from "../core/config.ts";
import { MvmError } from "../core/errors.ts";
import { type RunResult, run } from "../core/process.ts";
import { lastLines } from "../core/text.ts";
import { type NixEvent, NixLog } from "./nix-log.ts";

export const NIX_INSTALL_HINT = "install it: apt-get install nix-bin (or see nixos.org/download)";

export interface NixOptions {
  readonly env: NodeJS.ProcessEnv;
  readonly signal?: AbortSignal;
  readonly onEvent?: (event: NixEvent) => void;
  /** Ask no binary cache: for builds whose inputs are all here. Without a network this saves seconds of retries. */
  readonly offline?: boolean;
  /** What the user configured for Nix beside nix.conf. */
  readonly settings?: NixSettings;
}

/** The system that this machine builds and runs. */
export function nixSystem(): string {
  return `${process.arch === "arm64" ? "aarch64" : "x86_64"}-linux`;
}

/**
 * Runs `nix ARGS` with flakes enabled, and returns its standard output.
 * @throws MvmError `NIX_MISSING`, or `NIX_FAILED` with Nix's own message and the failed build's last lines as detail
 */
export async function nix(args: readonly string[], options: NixOptions): Promise<string> {
  const first = await attempt(args, options);
  if (first.result.exitCode === 0) return first.result.stdout;
  // Nix 2.8 kills all processes of a build's user when the builder ends, and is sometimes a moment early.
  const raced = /failed due to signal 9/.test(first.log.errorText());
  const last = raced ? await attempt(args, options) : first;
  if (last.result.exitCode === 0) return last.result.stdout;
  throw nixFailed(last.log);
}

async function attempt(args: readonly string[], options: NixOptions): Promise<{ result: RunResult; log: NixLog }> {
  const log = new NixLog(options.onEvent);
  try {
    const result = await run("nix", [...globalOptions(options), ...args], {
      env: options.env,
      onStderrLine: (line) => log.push(line),
      installHint: NIX_INSTALL_HINT,
      ...(options.signal ? { signal: options.signal } : {}),
    });
    return { result, log };
  } catch (error) {
    if (error instanceof MvmError && error.code === "PROGRAM_MISSING") {
      throw new MvmError("NIX_MISSING", "Nix is not installed: nix was not found", {
        hint: NIX_INSTALL_HINT,
        cause: error,
      });
    }
    throw error;
  }
}

/** Exported for its test. */
export function globalOptions({ offline, settings = {} }: NixOptions): string[] {
  const { builders = [], substituters = [], trustedPublicKeys = [] } = settings;
  const args = ["--extra-experimental-features", "nix-command", "--extra-experimental-features", "flakes"];
  args.push("--log-format", "internal-json");
  if (builders.length > 0) args.push("--option", "builders", builders.join(" ; "));
  // What needs no public cache may still be in one that was configured.
  if (offline) args.push("--option", "substituters", substituters.join(" "));
  else if (substituters.length > 0) args.push("--option", "extra-substituters", substituters.join(" "));
  if (trustedPublicKeys.length > 0) args.push("--option", "extra-trusted-public-keys", trustedPublicKeys.join(" "));
  if (rootWithoutBuildUsers()) args.push("--option", "build-users-group", "");
  return args;
}

/** Root builds as the users of the group nixbld; where there is none (a container, a fresh machine), as itself. */
function rootWithoutBuildUsers(): boolean {
  if (process.getuid?.() !== 0 || !existsSync("/etc/group")) return false;
  return !/^nixbld:/m.test(readFileSync("/etc/group", "utf8"));
}

const MAX_MESSAGE_LINES = 30;

function nixFailed(log: NixLog): MvmError {
  const text = log.errorText();
  const detail = [
    trimLines(text, MAX_MESSAGE_LINES),
    log.buildLog.length > 0 ? `last lines of the build:\n${log.buildLog.join("\n")}` : "",
  ];
  return new MvmError("NIX_FAILED", `Nix failed: ${firstError(text)}`, {
    detail: detail.filter(Boolean).join("\n"),
    ...hintFor(text),
  });
}

/** The line that says what is wrong, of a message that may begin with a trace of where it was found. */
function firstError(text: string): string {
  const lines = text.split("\n").map((line) => line.trim());
  const errors = lines.filter((line) => line.startsWith("error:") && line.length > "error:".length);
  return (errors[0] ?? lines.find(Boolean) ?? "it said nothing").replace(/^error:\s*/, "");
}

function trimLines(text: string, most: number): string {
  const lines = text.split("\n").filter((line) => line.trim() !== "");
  if (lines.length <= most) return lines.join("\n");
  return [...lines.slice(0, most / 2), `… ${lines.length - most} lines left out …`, lastLines(text, most / 2)].join(
    "\n",
  );
}

const OFFLINE =
  /unable to download|Couldn't resolve host|Could not resolve host|Couldn't connect|Connection refused|Network is unreachable|timed out/i;

function hintFor(text: string): { hint?: string } {
  if (OFFLINE.test(text)) {
    return {
      hint:
        "Nix could not reach the network. Templates can be built from Debian's packages instead: " +
        "`mvmctl template init NAME --local --pkgs host`, or `pkgs = mvm.hostPkgs.x86_64-linux` in flake.nix",
    };
  }
  if (
    /Host key verification failed|Permission denied \(|failed to start SSH connection|cannot connect to '/i.test(text)
  ) {
    return {
      hint: "see that `ssh HOST nix-store --version` works from here without a question; NIX_SSHOPTS adds options of ssh",
    };
  }
  if (/is not tracked by Git|does not exist in Git repository/i.test(text))
    return { hint: "Nix sees only files that Git knows: git add the file" };
  if (/is not a valid URL/.test(text)) {
    return {
      hint: "Nix takes no spaces and few special characters in a flake's path: move the flake to a plainer one",
    };
  }
  if (/permission denied|opening lock file|creating directory '\/nix/i.test(text)) {
    return { hint: "install Nix's daemon (apt-get install nix-setup-systemd), or run as root" };
  }
  return {};
}
