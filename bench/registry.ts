/**
 * Measures pushing, pulling and verifying a template against the tools that people copy files with, on the same server and the
 * same files, in turns: `npm run bench:registry`. Needs MVM_TEST_VERSITYGW (`.ci/run` shows how it is built), and compares with those of
 * rclone, aws and desync that are on the PATH. Exits with 1 if a promise is not kept.
 */
import { cpSync, linkSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { cpus, tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { formatBytes } from "../src/core/sizes.ts";
import { startVersitygw } from "../test/support/s3-server.ts";
import { compareTools, type Tool } from "./copy-tools.ts";
import { type Measured, measureProcess, median } from "./measure.ts";
import { unpackPackage } from "./package.ts";
import { report, type Verdict } from "./report.ts";

const { values } = parseArgs({ options: { rounds: { type: "string", default: "3" } } });
const ROUNDS = Number(values.rounds);
const REPOSITORY = join(import.meta.dirname, "..");
const work = mkdtempSync(join(tmpdir(), "mvm-bench-registry-"));
const LAUNCHER = unpackPackage(join(work, "package"));
const note = (text: string) => process.stderr.write(`${text}\n`);
const seconds = (ms: number) => `${(ms / 1000).toFixed(2)} s`;
await using server = await startVersitygw();

interface Machine {
  readonly dataDir: string;
  mvmctl(...args: string[]): Promise<Measured>;
}

/** A data directory, and a prefix in the bucket. */
function machine(name: string, prefix: string): Machine {
  const dataDir = join(work, name);
  const env = {
    ...process.env,
    ...server.env(),
    MVM_TEMPLATE_REGISTRY_PREFIX: prefix,
    MVM_DATA_DIR: dataDir,
    NO_COLOR: "1",
  };
  return { dataDir, mvmctl: (...args) => measureProcess(process.execPath, [LAUNCHER, ...args], env) };
}

/** Two revisions with snapshots, built one after the other, a line of the service changed between them. Returns their ids. */
async function buildTwice(builder: Machine): Promise<[string, string]> {
  const flake = join(work, "flake");
  cpSync(join(REPOSITORY, "examples", "python-web"), flake, { recursive: true });
  await builder.mvmctl("template", "create", "web", "--flake", flake, "--mem", "1400");
  const ids: string[] = [];
  for (const round of [1, 2]) {
    const service = join(flake, "server.py");
    writeFileSync(service, `# revision ${round}\n${readFileSync(service, "utf8")}`);
    const { stdout } = await builder.mvmctl("template", "build", "web", "--snapshot", "--json");
    ids.push((JSON.parse(stdout) as { revision: string }).revision);
  }
  return [ids[0]!, ids[1]!];
}

/** The files of a revision and its snapshot in one directory, as somebody would copy them. */
function filesOf({ dataDir }: Machine, id: string): string {
  const files = join(work, "files");
  mkdirSync(files);
  const revision = join(dataDir, "templates", "web", "revisions", id);
  const [key] = readdirSync(join(revision, "snapshots"));
  for (const name of ["vmlinux", "initrd", "rootfs.erofs"]) linkSync(join(revision, name), join(files, name));
  for (const name of ["vmstate.bin", "mem.bin"]) linkSync(join(revision, "snapshots", key!, name), join(files, name));
  return files;
}

const times = {
  push: [] as Measured[],
  pushSecond: [] as Measured[],
  pull: [] as Measured[],
  pullSecond: [] as Measured[],
  verify: [] as number[],
  sha256sum: [] as number[],
};
const copies = new Map<Tool, { push: Measured[]; pull: Measured[] }>();

note("building two revisions with snapshots");
const builder = machine("builder", "unused");
const [first, second] = await buildTwice(builder);
const files = filesOf(builder, first);
const tools = await compareTools(server.options, files, work);
let logical = 0;
for (let round = 0; round < ROUNDS; round++) {
  note(`round ${round + 1} of ${ROUNDS}`);
  // Each round has a prefix of its own: a registry that knows nothing yet.
  const here = { ...machine("builder", `round${round}`) };
  const there = machine(`puller${round}`, `round${round}`);
  times.push.push(await here.mvmctl("template", "push", `web@${first}`, "--json"));
  times.pull.push(await there.mvmctl("template", "pull", "web", "--json"));
  times.pushSecond.push(await here.mvmctl("template", "push", `web@${second}`, "--json"));
  times.pullSecond.push(await there.mvmctl("template", "pull", "web", "--json"));
  const verified = await there.mvmctl("template", "verify", `web@${first}`, "--json");
  logical = (JSON.parse(verified.stdout) as { bytes: number }).bytes;
  times.verify.push(verified.ms);
  const sums = `ls ${files}/* | xargs -P ${cpus().length} -n 1 sha256sum`;
  times.sha256sum.push((await measureProcess("sh", ["-c", sums], process.env)).ms);
  for (const tool of tools) {
    const measured = copies.get(tool) ?? { push: [], pull: [] };
    copies.set(tool, measured);
    measured.push.push(await tool.push(`${tool.name}${round}`));
    measured.pull.push(await tool.pull(`${tool.name}${round}`));
  }
  rmSync(there.dataDir, { recursive: true });
}

const ms = (list: readonly Measured[]) => median(list.map((one) => one.ms));
const wire = (list: readonly Measured[]) => median(list.map((one) => one.wireBytes));
const shown = (list: readonly Measured[]) => `${seconds(ms(list))}, ${formatBytes(wire(list))}`;

function against(what: string, ours: readonly Measured[], kind: "push" | "pull"): Verdict {
  const others = [...copies].map(([tool, measured]) => ({ tool, list: measured[kind] }));
  const bare = others.map(({ tool, list }) => `${tool.name} ${shown(list)}`).join("; ") || "no tool to compare with";
  const kept = others.every(({ list }) => ms(ours) < ms(list) && wire(ours) < wire(list));
  return { what, measured: shown(ours), bare, promise: "faster than any, fewer bytes on the wire than any", kept };
}

const totals = JSON.parse(times.pushSecond[0]!.stdout).totals as { new: number; transferred: number };
const pulled = JSON.parse(times.pullSecond[0]!.stdout).totals as { new: number; transferred: number };
const share = ms(times.pushSecond) / ms(times.push);
const speed = logical / 1024 ** 3 / (median(times.verify) / 1000);
const sumSpeed = logical / 1024 ** 3 / (median(times.sha256sum) / 1000);
const peak = Math.max(
  ...Object.values(times)
    .flat()
    .map((one) => (typeof one === "number" ? 0 : one.peakRssBytes)),
);
report([
  against("first push", times.push, "push"),
  against("first pull", times.pull, "pull"),
  {
    what: `second push (${formatBytes(totals.new)} new, ${formatBytes(totals.transferred)} compressed)`,
    measured: `${shown(times.pushSecond)} (${share.toFixed(2)} of the first)`,
    bare: "",
    promise: "a quarter of the first push's time",
    kept: share <= 0.25,
  },
  {
    what: `second pull, the first on disk (${formatBytes(pulled.new)} new)`,
    measured: shown(times.pullSecond),
    bare: "",
    promise: "only the new bytes",
    kept: pulled.transferred <= totals.transferred * 1.05,
  },
  {
    what: `verify ${formatBytes(logical)}`,
    measured: `${speed.toFixed(2)} GiB/s`,
    bare: `sha256sum on all cores: ${sumSpeed.toFixed(2)} GiB/s`,
    promise: "1 GiB/s, or 80 % of sha256sum",
    kept: speed >= 1 || speed >= 0.8 * sumSpeed,
  },
  {
    what: "peak memory",
    measured: formatBytes(peak),
    bare: "",
    promise: "under 300 MiB",
    kept: peak < 300 * 1024 ** 2,
  },
]);
rmSync(work, { recursive: true, force: true });
