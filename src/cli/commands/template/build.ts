import { parseTemplateName, shortRevision } from "../../../core/names.ts";
import { formatBytes, formatMs } from "../../../core/sizes.ts";
import { chooseDriver } from "../../../hypervisor/choose.ts";
import type { Driver } from "../../../hypervisor/driver.ts";
import { type BuildOutcome, buildTemplate, type SnapshotOutcome } from "../../../template/build.ts";
import { registerFromDirectory } from "../../../template/create.ts";
import type { Cli } from "../../cli.ts";
import { UsageError } from "../../errors.ts";
import { collect, flag, listOption, type Options, type Page, textOption } from "../../page.ts";
import { parseSeconds } from "../../seconds.ts";

/** Emulated guests take seconds to boot; a database that initialises itself takes longer. */
const DEFAULT_TIMEOUT_SECONDS = "180";

export const page: Page = {
  summary: "Build a template, and snapshot it healthy",
  description:
    "Builds the template's flake with Nix. With --snapshot, also boots a temporary VM, waits until every health check passes, and stores its memory and state beside the revision, for `run` to restore. A build whose flake, lock and settings are unchanged does nothing. A template that is not registered yet is, if the flake.nix here is of its name.",
  define: (command) =>
    command
      .argument("<name>")
      .option("--force", "build and snapshot even if nothing changed")
      .option("--snapshot", "also store a snapshot of the booted, healthy VM")
      .option("--timeout <seconds>", `for the VM to become healthy (default ${DEFAULT_TIMEOUT_SECONDS})`)
      .option("--hypervisor <names>", "the hypervisor for the snapshot, or several: qemu,firecracker")
      .option("--builders <spec>", "a machine that builds, as in Nix's `builders`; may be repeated", collect),
  examples: [
    "mvmctl template build my-service",
    "mvmctl template build my-service --snapshot --timeout 300",
    "mvmctl template build my-service --builders 'ssh-ng://builder x86_64-linux'",
  ],
  json: true,
  async run(cli, [text = ""], options) {
    const name = parseTemplateName(text);
    const timeoutMs = parseSeconds("--timeout", textOption(options, "timeout") ?? DEFAULT_TIMEOUT_SECONDS);
    const builders = listOption(options, "builders");
    if (!flag(options, "snapshot")) for (const option of ["hypervisor", "timeout"]) requireAbsent(options, option);
    registerFromDirectory(cli, name, cli.cwd);
    const wanted = textOption(options, "hypervisor");
    const outcome = await buildTemplate(cli, name, {
      force: flag(options, "force"),
      ...(builders.length > 0 ? { builders } : {}),
      ...(flag(options, "snapshot") ? { snapshot: { drivers: await chooseDrivers(cli, wanted), timeoutMs } } : {}),
    });
    cli.print(asData(outcome), () => describe(outcome));
  },
};

/** Options that say how to snapshot: without a snapshot they would do nothing. */
function requireAbsent(options: Options, option: string): void {
  if (textOption(options, option) === undefined) return;
  throw new UsageError(
    `--${option} is for the snapshot, and none was asked for`,
    `add --snapshot, or leave --${option} out`,
  );
}

/** The best one of this machine, or all that were named. */
async function chooseDrivers(cli: Cli, wanted: string | undefined): Promise<Driver[]> {
  const names = wanted === undefined ? [undefined] : [...new Set(wanted.split(",").map((name) => name.trim()))];
  const drivers: Driver[] = [];
  for (const name of names) drivers.push(await chooseDriver(cli, name));
  return drivers;
}

function asData({ template, revision, cached, durationMs, snapshots }: BuildOutcome): unknown {
  return {
    template,
    revision: revision.id,
    directory: revision.directory,
    package: revision.manifest.package,
    cached,
    durationMs: Math.round(durationMs),
    snapshots: snapshots.map(({ stored, reused, durationMs, memoryBytesOnDisk }) => ({
      key: stored.key,
      hypervisor: stored.snapshot.hypervisor.name,
      directory: stored.directory,
      reused,
      durationMs: Math.round(durationMs),
      bootMs: stored.snapshot.bootMs,
      healthyMs: stored.snapshot.healthyMs,
      memoryBytesOnDisk,
    })),
  };
}

function describe({ template, revision, cached, durationMs, snapshots }: BuildOutcome): string {
  const { rootfs, kernel, initrd } = revision.manifest.artifacts;
  const size = formatBytes(rootfs.size + kernel.size + (initrd?.size ?? 0));
  const built = cached
    ? `Nothing changed: ${template} is at revision ${shortRevision(revision.id)} (cached, ${formatMs(durationMs)}).\n`
    : `Built ${template}: revision ${shortRevision(revision.id)}, ${size}, in ${formatMs(durationMs)}.\n`;
  const taken = snapshots.map(describeSnapshot).join("");
  return `${built}${taken}Run it: mvmctl run --template ${template}\n`;
}

function describeSnapshot({ stored, reused, memoryBytesOnDisk, durationMs }: SnapshotOutcome): string {
  const { hypervisor, healthyMs } = stored.snapshot;
  return reused
    ? `It has a snapshot for ${hypervisor.name} already (${stored.key}).\n`
    : `Snapshot for ${hypervisor.name} (${stored.key}): healthy after ${formatMs(healthyMs)}, ${formatBytes(memoryBytesOnDisk)} of memory, in ${formatMs(durationMs)}.\n`;
}
