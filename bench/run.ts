/**
 * Measures what the product promises, each against the bare tool that does the same work, in the same run: `npm run bench`.
 * Prints a table; exits with 1 if a promise is not kept. Run it on a machine that does nothing else.
 */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { renderDocument } from "../src/core/documents.ts";
import { ensureDirectory } from "../src/core/files.ts";
import { parseTemplateName } from "../src/core/names.ts";
import { resolvePaths } from "../src/core/paths.ts";
import { run } from "../src/core/process.ts";
import { TEMPLATE_DEFAULTS } from "../src/template/spec.ts";
import { bareTool, endVms } from "./bare.ts";
import { median, timeAll, timeProcess } from "./measure.ts";
import { unpackPackage } from "./package.ts";
import { report, type Verdict } from "./report.ts";

const { values } = parseArgs({ options: { rounds: { type: "string", default: "20" } } });
const ROUNDS = Number(values.rounds);
const COLD_ROUNDS = Math.max(3, Math.round(ROUNDS / 4));
const REPOSITORY = join(import.meta.dirname, "..");
const work = mkdtempSync(join(tmpdir(), "mvm-bench-"));
const LAUNCHER = unpackPackage(join(work, "package"));
const env = { ...process.env, NO_COLOR: "1", MVM_DATA_DIR: join(work, "data") };
const paths = resolvePaths(env);
const template = parseTemplateName("hello");
const mvmctl = (...args: string[]) => timeProcess(process.execPath, [LAUNCHER, ...args], env);
const ms = (value: number) => `${value.toFixed(0)} ms`;
const note = (text: string) => process.stderr.write(`${text}\n`);

async function restoreToRunning(): Promise<Verdict[]> {
  note("restore to running, in turns with the bare script");
  const bare = await bareTool(paths, template, join(work, "bare"), env);
  const times = { bare: [] as number[], handshake: [] as number[], ours: [] as number[] };
  for (let round = 0; round < ROUNDS; round++) {
    times.bare.push(await bare.restore(`bare${round}`, "woken"));
    await endVms(join(work, "bare"));
    times.handshake.push(await bare.restore(`hand${round}`, "handshake"));
    await endVms(join(work, "bare"));
    times.ours.push(await mvmctl("run", "--template", template, "--name", `r${round}`, "--wait", "running"));
    await mvmctl("rm", "--force", `r${round}`);
  }
  const [ours, theirs] = [median(times.ours), median(times.bare)];
  note(`  bare script to the handshake alone: ${ms(median(times.handshake))}`);
  return [
    {
      what: "run from a snapshot, to running",
      measured: ms(ours),
      bare: ms(theirs),
      promise: "bare + 60 ms",
      kept: ours <= theirs + 60,
    },
  ];
}

async function restoreToHealthy(): Promise<Verdict[]> {
  note("restore to healthy, in turns with cold boots");
  const restored: number[] = [];
  const booted: number[] = [];
  for (let round = 0; round < COLD_ROUNDS; round++) {
    booted.push(await mvmctl("run", "--template", template, "--name", `b${round}`, "--cold"));
    await mvmctl("rm", "--force", `b${round}`);
    for (let i = 0; i < 4; i++) {
      restored.push(await mvmctl("run", "--template", template, "--name", `h${round}-${i}`));
      await mvmctl("rm", "--force", `h${round}-${i}`);
    }
  }
  const ratio = median(booted) / median(restored);
  return [
    {
      what: "run from a snapshot, to healthy",
      measured: `${ms(median(restored))} (${ratio.toFixed(1)} times faster)`,
      bare: `cold boot ${ms(median(booted))}`,
      promise: "10 times faster than a cold boot",
      kept: ratio >= 10,
    },
  ];
}

async function sixteenAtOnce(): Promise<Verdict[]> {
  note("16 instances, four at a time");
  const bare = await bareTool(paths, template, join(work, "bare"), env);
  const names = Array.from({ length: 16 }, (_, index) => `m-${index + 1}`);
  const times = { bare: [] as number[], one: [] as number[], sixteen: [] as number[] };
  let grown = 0;
  for (let round = 0; round < 3; round++) {
    times.bare.push(await timeAll(16, 4, (index) => bare.restore(`b${index}`, "woken")));
    await endVms(join(work, "bare"));
    const before = await allocated(paths.dataDir);
    const run = ["run", "--template", template, "--wait", "running"];
    times.one.push(await mvmctl(...run, "--name", "m", "--count", "16", "--parallel", "4"));
    grown = (await allocated(paths.dataDir)) - before;
    await mvmctl("rm", "--force", ...names);
    times.sixteen.push(await timeAll(16, 4, (index) => mvmctl(...run, "--name", names[index]!)));
    await mvmctl("rm", "--force", ...names);
  }
  const theirs = median(times.bare);
  const verdict = (what: string, values: readonly number[]): Verdict => {
    const ratio = median(values) / theirs;
    const measured = `${ms(median(values))} (${ratio.toFixed(2)} times)`;
    return { what, measured, bare: ms(theirs), promise: "1.25 times the bare script", kept: ratio <= 1.25 };
  };
  const disk = `${(grown / 1024).toFixed(0)} KiB`;
  const promise = "image and snapshot are not copied";
  return [
    verdict("16 instances, 4 at a time, by one command (`run --count 16`)", times.one),
    verdict("16 instances, 4 at a time, by 16 commands", times.sixteen),
    { what: "disk taken by those 16", measured: disk, bare: "", promise, kept: grown < 16 * 1024 * 1024 },
  ];
}

/** Bytes that a directory takes on the disk. */
async function allocated(directory: string): Promise<number> {
  return Number((await run("du", ["-s", "-B1", directory])).stdout.split("\t")[0]);
}

async function startUp(): Promise<Verdict[]> {
  note("start-up");
  const version: number[] = [];
  const node: number[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    node.push(await timeProcess(process.execPath, ["-e", "0"], env));
    version.push(await mvmctl("--version"));
  }
  const many = { ...env, MVM_DATA_DIR: join(work, "many") };
  makeTemplates(resolvePaths(many).templates, 1000);
  const list: number[] = [];
  for (let round = 0; round < ROUNDS; round++)
    list.push(await timeProcess(process.execPath, [LAUNCHER, "template", "list"], many));
  const cached: number[] = [];
  for (let round = 0; round < 5; round++) cached.push(await mvmctl("template", "build", template));
  const [bare, ours] = [median(node), median(version)];
  return [
    {
      what: "mvmctl --version",
      measured: `${ms(ours)} (${(ours / bare).toFixed(2)} times)`,
      bare: `node -e 0: ${ms(bare)}`,
      promise: "1.5 times node -e 0",
      kept: ours <= bare * 1.5,
    },
    {
      what: "template list, 1,000 templates",
      measured: ms(median(list)),
      bare: ms(ours),
      promise: "--version + 150 ms",
      kept: median(list) <= ours + 150,
    },
    {
      what: "template build, cached",
      measured: ms(median(cached)),
      bare: "",
      promise: "under 1 s",
      kept: median(cached) < 1000,
    },
  ];
}

function makeTemplates(directory: string, count: number): void {
  for (let index = 0; index < count; index++) {
    const name = `template-${index}`;
    ensureDirectory(join(directory, name));
    writeFileSync(
      join(directory, name, "template.json"),
      renderDocument({
        version: 1,
        name,
        ...TEMPLATE_DEFAULTS,
        flake: "/srv/flake",
        createdAt: new Date(0).toISOString(),
      }),
    );
  }
}

try {
  note("building the template");
  await mvmctl("template", "create", template, "--flake", join(REPOSITORY, "examples", "hello"), "--mem", "512");
  await mvmctl("template", "build", template, "--snapshot");
  const verdicts = [
    ...(await restoreToRunning()),
    ...(await restoreToHealthy()),
    ...(await sixteenAtOnce()),
    ...(await startUp()),
  ];
  report(verdicts);
} finally {
  await endVms(work);
  rmSync(work, { recursive: true, force: true });
}
