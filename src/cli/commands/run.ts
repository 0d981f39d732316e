import { parseInstanceName, parseTemplateName, type TemplateName } from "../../core/names.ts";
import { parseCpus, parseDataDiskMiB, parseMemMiB, parseWhole } from "../../core/sizes.ts";
import { parsePortForward } from "../../instance/ports.ts";
import { runInstance } from "../../instance/run.ts";
import type { RunManyOptions } from "../../instance/run-many.ts";
import type { RunOutcome, RunRequest } from "../../instance/run-request.ts";
import { parseVolume } from "../../instance/volumes.ts";
import type { Cli } from "../cli.ts";
import { UsageError } from "../errors.ts";
import { collect, flag, listOption, type Options, type Page, textOption } from "../page.ts";
import { parseSeconds } from "../seconds.ts";
import { defineWaiting, describeStart, parseWaiting } from "../starting.ts";

const DEFAULT_STOP_TIMEOUT_SECONDS = "15";
const MOST_INSTANCES = 1000;

export const page: Page = {
  summary: "Start an instance: restored from a snapshot, or booted",
  description: `Restores the template's snapshot if one fits this machine, and boots otherwise, saying why. Returns when the guest is healthy.

A directory given with -v is copied into the guest at the start, through the agent: it is no mount, so a run with -v restores as
fast as one without but for the copying, and changes made later on either side do not reach the other. --env is for services: it restarts those that a
snapshot had running, as nobody can change the environment of a running process.
--data-disk is a disk at /mnt/data of this instance's own: it begins as the snapshot had it, survives \`stop\`, and is picked up again, in
its size, by \`run --name\` of the same name and template, until \`rm\`.
--count starts several in less time than as many commands take. Each gets a host port of its own for a guest's port (-p 80).
--foreground stays with the instance: what its services write goes to standard output, Ctrl+C or SIGTERM stops it as \`stop\` does, and the exit code is 0 when it was stopped
or shut itself down, 1 when it died. The VM never outlives the command, not even one that is killed.`,
  define: (command) =>
    void defineWaiting(
      command
        .argument("[template]", "the template to run")
        .option("--template <name>", "the same")
        .option("--flake <ref>", "build this flake and run it, in one go")
        .option("--revision <id>", "another revision than the current one: the beginning of its id")
        .option("--name <name>", "the instance's name (made up if not given)")
        .option("--count <n>", "start several, NAME-1 to NAME-n: all, or none if one can't be started")
        .option(
          "--parallel <n>",
          "with --count: how many start at a time (default: as many as there are CPUs, at least 4)",
        )
        .option(
          "-p, --publish <host:guest>",
          "reach a guest's TCP port: 8080:80, or 80 for any free host port; may be repeated",
          collect,
        )
        .option(
          "-v, --volume <dir:path>",
          "copy a directory into the guest, to /mnt/config, /mnt/secrets or any path; may be repeated",
          collect,
        )
        .option("-e, --env <key=value>", "an environment variable for services and commands; may be repeated", collect)
        .option("--cpus <n>", "other virtual CPUs than the template's: means a cold boot")
        .option("--mem <MiB>", "other memory than the template's: means a cold boot")
        .option("--data-disk <MiB>", "another data disk than the template's: means a cold boot")
        .option("--cold", "boot even if a snapshot fits"),
    )
      .option("--hypervisor <name>", "instead of the best one of this machine")
      .option("--jail", "lock Firecracker up in its jailer: a user, a cgroup and a root of its own; needs root")
      .option(
        "--isolate",
        "a network of its own, without cloud metadata services and this host's own (Firecracker's guests always have one)",
      )
      .option(
        "--allow <address>",
        "let an isolated guest reach a blocked address or network (10.0.2.2 is this host's loopback); may be repeated",
        collect,
      )
      .option("-d, --detach", "return and leave it running (the default)")
      .option("--foreground", "stay, show what its services write, and stop it when told to")
      .option(
        "--stop-timeout <seconds>",
        `with --foreground: to shut down, before force is used (default ${DEFAULT_STOP_TIMEOUT_SECONDS})`,
      ),
  examples: [
    "mvmctl run --template my-service --name svc -p 8080:80",
    "mvmctl run --template my-service -v ./config:/mnt/config -v ./secrets:/mnt/secrets -e LOG=debug",
    "mvmctl run --template sandbox --isolate",
    "mvmctl run --template sandbox --name agent --count 16 -p 8000",
    "mvmctl run --flake . --name try",
    "mvmctl run --template my-service --name svc --foreground",
  ],
  json: true,
  async run(cli, [named], options) {
    const request = parseRequest(cli, options);
    const stopTimeoutMs = parseSeconds(
      "--stop-timeout",
      textOption(options, "stopTimeout") ?? DEFAULT_STOP_TIMEOUT_SECONDS,
    );
    const foreground = flag(options, "foreground");
    if (foreground && flag(options, "detach"))
      throw new UsageError("--foreground and --detach say two things", "give one of them");
    const many = parseMany(options);
    if (foreground && many)
      throw new UsageError("--foreground stays with one instance", "leave --count or --foreground out");
    const template = await templateToRun(cli, named, options);
    if (many) {
      const { runInstances } = await import("../../instance/run-many.ts");
      const outcomes = await runInstances(cli, { ...request, template }, many);
      return cli.print(outcomes, () => describeMany(outcomes));
    }
    if (foreground) return await stay(cli, { ...request, template }, stopTimeoutMs);
    const outcome = await runInstance(cli, { ...request, template });
    cli.print(outcome, () => describe(outcome));
  },
};

/** Runs in the foreground. Standard output belongs to the guest's services; what is ours goes to standard error. */
async function stay(cli: Cli, request: RunRequest, stopTimeoutMs: number): Promise<number> {
  cli.endsInOrder();
  let started = false;
  try {
    const { runInForeground } = await import("../../instance/foreground.ts");
    const end = await runInForeground(cli, request, {
      stopTimeoutMs,
      onStarted: (outcome) => {
        started = true;
        cli.settle();
        cli.stderr.write(cli.json ? `${JSON.stringify(outcome)}\n` : describeStart(outcome));
      },
      write: (text) => void cli.stdout.write(text),
    });
    if (end === "killed") cli.stderr.write("the guest did not shut down in time and was ended by force\n");
    return end === "killed" ? 1 : 0;
  } catch (error) {
    // Told to stop before it was up: nothing is left of it.
    if (cli.signal.aborted && !started) return 0;
    throw error;
  }
}

function parseRequest(cli: Cli, options: Options) {
  const given = <T, K extends string>(key: K, option: string, parse: (text: string) => T): { [P in K]?: T } => {
    const text = textOption(options, option);
    return text === undefined ? {} : ({ [key]: parse(text) } as { [P in K]: T });
  };
  return {
    ...given("revision", "revision", (text) => text),
    ...given("name", "name", parseInstanceName),
    ...given("cpus", "cpus", parseCpus),
    ...given("memMiB", "mem", parseMemMiB),
    ...given("dataDiskMiB", "dataDisk", parseDataDiskMiB),
    ...given("hypervisor", "hypervisor", (text) => text),
    ports: listOption(options, "publish").map(parsePortForward),
    volumes: listOption(options, "volume").map((text) => parseVolume(text, cli.cwd)),
    env: Object.fromEntries(listOption(options, "env").map(parseVariable)),
    cold: flag(options, "cold"),
    jail: flag(options, "jail"),
    isolate: flag(options, "isolate"),
    allow: listOption(options, "allow"),
    ...parseWaiting(options),
  } as const;
}

/** How many, if that was said. @throws MvmError `INVALID_SIZE`, UsageError */
function parseMany(options: Options): RunManyOptions | undefined {
  const count = textOption(options, "count");
  const parallel = textOption(options, "parallel");
  if (count === undefined) {
    if (parallel === undefined) return undefined;
    throw new UsageError("--parallel says how many start at a time, and only one does", "add --count N");
  }
  const whole = (option: string, text: string) =>
    parseWhole(option, text, "a number of instances", { min: 1, max: MOST_INSTANCES });
  return {
    count: whole("--count", count),
    ...(parallel === undefined ? {} : { parallel: whole("--parallel", parallel) }),
  };
}

/** `K=V`. */
function parseVariable(text: string): [key: string, value: string] {
  const match = /^([A-Za-z_][A-Za-z0-9_]*)=(.*)$/s.exec(text);
  if (match) return [match[1]!, match[2]!];
  throw new UsageError(`--env '${text}' is not a variable`, "write --env NAME=value");
}

/** The template that was named, or the one that the given flake is (registered and built on the way). */
async function templateToRun(cli: Cli, named: string | undefined, options: Options): Promise<TemplateName> {
  const given = [named, textOption(options, "template")].filter((name) => name !== undefined);
  if (given.length > 1) throw new UsageError(`${given.join(" and ")} are two templates to run`, "give one of them");
  const [name] = given;
  const flake = textOption(options, "flake");
  if (name !== undefined && flake === undefined) return parseTemplateName(name);
  if (flake === undefined || name !== undefined) {
    const what = name === undefined ? "what to run was not said" : "a template and --flake say two things to run";
    throw new UsageError(what, "give either a template's name or --flake REF");
  }
  const [{ templateOfFlake }, { buildTemplate }] = await Promise.all([
    import("../../template/flake-template.ts"),
    import("../../template/build.ts"),
  ]);
  const template = templateOfFlake(cli, flake, cli.cwd);
  await buildTemplate(cli, template, { force: false });
  return template;
}

function describeMany(outcomes: readonly RunOutcome[]): string {
  const names = outcomes.map(({ name }) => name);
  return `${outcomes.map(describeStart).join("")}Next: mvmctl ls, mvmctl stop ${names.join(" ")}\n`;
}

function describe(outcome: RunOutcome): string {
  const { name } = outcome;
  return `${describeStart(outcome)}Next: mvmctl exec ${name} -- COMMAND, mvmctl logs ${name}, mvmctl stop ${name}\n`;
}
