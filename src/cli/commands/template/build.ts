import { parseTemplateName, shortRevision } from "../../../core/names.ts";
import { formatBytes, formatMs } from "../../../core/sizes.ts";
import { chooseDriver } from "../../../hypervisor/choose.ts";
import { type BuildOutcome, buildTemplate } from "../../../template/build.ts";
import { registerFromDirectory } from "../../../template/create.ts";
import { collect, flag, listOption, type Page, textOption } from "../../page.ts";
import { parseSeconds } from "../../seconds.ts";

/** Emulated guests take seconds to boot; a database that initialises itself takes longer. */
const DEFAULT_TIMEOUT_SECONDS = "180";

export const page: Page = {
  summary: "Build a template, and snapshot it healthy",
  description:
    "Builds the template's flake with Nix. With --snapshot, also boots a temporary VM, waits until every health check passes, and stores its memory and state beside the revision, for `run` to restore. A build whose flake, lock and settings are unchanged does nothing. A template that is not registered yet is, if its flake.nix is here.",
  define: (command) =>
    command
      .argument("<name>")
      .option("--force", "build and snapshot even if nothing changed")
      .option("--snapshot", "also store a snapshot of the booted, healthy VM")
      .option("--timeout <seconds>", `for the VM to become healthy (default ${DEFAULT_TIMEOUT_SECONDS})`)
      .option("--hypervisor <name>", "the hypervisor for the snapshot")
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
    await registerFromDirectory(cli, name, cli.cwd);
    const driver = chooseDriver({ cacheDir: cli.paths.cache, env: cli.env }, textOption(options, "hypervisor"));
    const outcome = await buildTemplate(cli, name, {
      force: flag(options, "force"),
      ...(builders.length > 0 ? { builders } : {}),
      ...(flag(options, "snapshot") ? { snapshot: { driver, timeoutMs } } : {}),
    });
    cli.print(asData(outcome), () => describe(outcome));
  },
};

function asData({ template, revision, cached, durationMs, snapshot }: BuildOutcome): unknown {
  return {
    template,
    revision: revision.id,
    directory: revision.directory,
    package: revision.manifest.package,
    cached,
    durationMs: Math.round(durationMs),
    ...(snapshot
      ? {
          snapshot: {
            key: snapshot.stored.key,
            directory: snapshot.stored.directory,
            reused: snapshot.reused,
            durationMs: Math.round(snapshot.durationMs),
            bootMs: snapshot.stored.snapshot.bootMs,
            healthyMs: snapshot.stored.snapshot.healthyMs,
            memoryBytesOnDisk: snapshot.memoryBytesOnDisk,
          },
        }
      : {}),
  };
}

function describe({ template, revision, cached, durationMs, snapshot }: BuildOutcome): string {
  const { rootfs, kernel, initrd } = revision.manifest.artifacts;
  const size = formatBytes(rootfs.size + kernel.size + (initrd?.size ?? 0));
  const built = cached
    ? `Nothing changed: ${template} is at revision ${shortRevision(revision.id)} (cached, ${formatMs(durationMs)}).\n`
    : `Built ${template}: revision ${shortRevision(revision.id)}, ${size}, in ${formatMs(durationMs)}.\n`;
  if (!snapshot) return `${built}Run it: mvmctl run --template ${template}\n`;
  const { stored, reused, memoryBytesOnDisk } = snapshot;
  const taken = reused
    ? `It has a snapshot already (${stored.key}).\n`
    : `Snapshot ${stored.key}: healthy after ${formatMs(stored.snapshot.healthyMs)}, ${formatBytes(memoryBytesOnDisk)} of memory, in ${formatMs(snapshot.durationMs)}.\n`;
  return `${built}${taken}Run it: mvmctl run --template ${template}\n`;
}
