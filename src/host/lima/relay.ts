import type { ChildProcess, StdioOptions } from "node:child_process";
import { constants } from "node:os";
import { sep } from "node:path";
import type { Context } from "../../core/context.ts";
import { spawnChecked } from "../../core/process.ts";
import { CallFile } from "./call-file.ts";
import { LIMA_INSTANCE } from "./limactl.ts";
import { requireRunning } from "./start.ts";

/** The terminal or the pipes that the command has. */
export interface RelayStreams {
  readonly cwd: string;
  readonly stdin: NodeJS.ReadStream;
  readonly stdout: NodeJS.WriteStream;
  readonly stderr: NodeJS.WriteStream;
}

const SIGNALS = ["SIGINT", "SIGTERM", "SIGHUP"] as const;

/**
 * Run by `sh -c` in the VM with the call file and mvmctl's arguments: the shell becomes mvmctl, and its pid mvmctl's.
 * Errors of the shell are hidden where the caller has withdrawn the call: nobody waits for this any more.
 */
const GUEST_SCRIPT = `call=$1; shift
if ! command -v mvmctl >/dev/null; then echo "error: mvmctl is not in the Lima VM: mvmctl setup" >&2; exit 1; fi
if ! [ -d "\${call%/*}" ]; then echo "error: the Lima VM does not see \${call%/*}: mvmctl setup" >&2; exit 1; fi
echo $$ >"$call.pid" && . "$call" 2>/dev/null && rm "$call" 2>/dev/null && exec mvmctl "$@"`;

const GUEST_KILL = `kill -s "$1" "$(cat "$2")"`;

/**
 * Runs a command line of ours in the Lima VM, in the same directory, with the MVM_* variables, and returns its exit code.
 * A stopped VM is started first. Signals to this process reach the one in the VM.
 * @throws MvmError `LIMA_MISSING`, `LIMA_VM_MISSING`, `LIMA_VM_BROKEN`, `LIMA_VM_OUTDATED`, `LIMA_FAILED`
 */
export async function relayToLima(context: Context & RelayStreams, argv: readonly string[]): Promise<number> {
  const { env, cwd } = context;
  const { limactl, vm } = await requireRunning(context);
  const visible = vm.sharedDirectories.some((directory) => cwd === directory || cwd.startsWith(directory + sep));
  if (!visible && vm.sharedDirectories[0]) {
    const text = `the Lima VM does not see ${cwd}: the command runs in ${vm.sharedDirectories[0]}`;
    context.report({ kind: "note", text });
  }
  using call = CallFile.create(env);
  const shell = (workdir: string, script: string, args: readonly string[]) => [
    ...["shell", "--workdir", workdir, LIMA_INSTANCE, "--"],
    ...["sh", "-c", script, "mvmctl", ...args],
  ];
  const terminal = isTerminal(context);
  const child = await spawnChecked(
    limactl,
    shell(visible ? cwd : (vm.sharedDirectories[0] ?? "/"), GUEST_SCRIPT, [call.path, ...argv]),
    { env, stdio: stdioFor(context, terminal), detached: !terminal },
  );
  child.stdout?.pipe(context.stdout);
  const kill = async (signal: NodeJS.Signals): Promise<boolean> => {
    const args = shell("/", GUEST_KILL, [signal.slice("SIG".length), call.pidPath]);
    return (await exitOf(await spawnChecked(limactl, args, { env, stdio: "ignore", detached: true }))) === 0;
  };
  const signalGuest = async (signal: NodeJS.Signals) => {
    // If it has begun although there was nobody to signal, then it began in between, or it has ended.
    if ((await kill(signal)) || (!call.withdraw() && (await kill(signal)))) return;
    child.kill("SIGTERM");
  };
  const onSignal = (signal: NodeJS.Signals) => void signalGuest(signal).catch(() => child.kill("SIGTERM"));
  // Before the others who listen: the second Ctrl+C ends this process at once, and is passed on nevertheless.
  for (const signal of SIGNALS) process.prependListener(signal, onSignal);
  try {
    return await exitOf(child);
  } finally {
    for (const signal of SIGNALS) process.removeListener(signal, onSignal);
  }
}

/** limactl asks for a terminal in the VM whenever its standard output is one, and then everything goes over that. */
function isTerminal({ stdin, stdout, stderr }: RelayStreams): boolean {
  return stdin.isTTY === true && stdout.isTTY === true && stderr.isTTY === true;
}

/** Where not all three are a terminal, a pipe keeps limactl from seeing one, and standard error stays apart. */
function stdioFor({ stdout }: RelayStreams, terminal: boolean): StdioOptions {
  return ["inherit", !terminal && stdout.isTTY ? "pipe" : "inherit", "inherit"];
}

function exitOf(child: ChildProcess): Promise<number> {
  return new Promise((resolve) => {
    child.once("close", (code, signal) => resolve(code ?? 128 + (signal ? constants.signals[signal] : 0)));
  });
}
