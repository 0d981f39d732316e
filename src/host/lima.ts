/** Commands that need no Linux: they are answered where they are typed. `setup` makes the VM. */
const LOCAL_COMMANDS = new Set(["help", "completions", "setup"]);

/** Whether commands run in a Lima VM here. */
export function usesLima(env: NodeJS.ProcessEnv, platform: NodeJS.Platform = process.platform): boolean {
  return platform !== "linux" || env["MVM_LIMA"] === "force";
}

/**
 * Whether a command line runs in the Lima VM: on every system but Linux, and on Linux with `MVM_LIMA=force` (for tests).
 * This is all that the rest of mvmctl knows of Lima; what it takes is in lima/, and loaded on such hosts alone.
 */
export function runsInLima(
  argv: readonly string[],
  env: NodeJS.ProcessEnv,
  platform: NodeJS.Platform = process.platform,
): boolean {
  if (!usesLima(env, platform)) return false;
  const [command] = argv;
  return command !== undefined && !LOCAL_COMMANDS.has(command) && !asksForHelp(argv);
}

/** What follows the name in `exec NAME COMMAND --help` is a command of the guest's. */
function asksForHelp(argv: readonly string[]): boolean {
  const last = argv.at(-1);
  return (last === "--help" || last === "-h") && (argv[0] !== "exec" || argv.length === 2) && !argv.includes("--");
}
