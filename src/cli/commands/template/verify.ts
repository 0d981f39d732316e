import { shortRevision } from "../../../core/names.ts";
import { formatBytes, formatMs } from "../../../core/sizes.ts";
import { parseReference } from "../../../registry/keys.ts";
import { resolveRemoteRevision } from "../../../registry/remote.ts";
import { repairTemplate } from "../../../registry/repair.ts";
import { openStore } from "../../../registry/settings.ts";
import { trustedKeys } from "../../../registry/trust.ts";
import { type Damage, type VerifyOutcome, verifyTemplate } from "../../../registry/verify.ts";
import { type RemoteVerifyOutcome, verifyRemote } from "../../../registry/verify-remote.ts";
import type { Cli } from "../../cli.ts";
import { UsageError } from "../../errors.ts";
import { flag, type Page } from "../../page.ts";

export const page: Page = {
  summary: "Check a template's files against their digests",
  description:
    "Reads every file of every revision and snapshot on this machine; with --remote, every tag, record and blob of the template in the registry, and every chunk in them. Exit code 1 if anything is damaged.",
  define: (command) =>
    command
      .argument("<name[@revision]>")
      .option("--repair", "fetch what is damaged from the registry")
      .option("--remote", "check what the registry has instead"),
  examples: [
    "mvmctl template verify my-service",
    "mvmctl template verify my-service --repair",
    "mvmctl template verify my-service --remote",
  ],
  json: true,
  async run(cli, [text = ""], options) {
    const { template, tag, revision } = parseReference(text);
    if (tag !== undefined)
      throw new UsageError("verify takes a revision, not a tag", `mvmctl template verify ${template}@REVISION`);
    if (flag(options, "remote") && flag(options, "repair"))
      throw new UsageError("--repair mends what is here, not what the registry has", "leave out one of the two");
    if (flag(options, "remote")) {
      const store = await openStore(cli);
      const ids = revision === undefined ? undefined : [await resolveRemoteRevision(cli, store, template, revision)];
      return report(cli, await verifyRemote(cli, store, template, ids), describeRemote);
    }
    cli.report({ kind: "step", text: `Reading ${template}` });
    const outcome = await verifyTemplate(cli, template, revision);
    if (outcome.damage.length === 0 || !flag(options, "repair")) return report(cli, outcome, describeLocal);
    for (const damage of outcome.damage) cli.report({ kind: "note", text: describeDamage(damage) });
    const store = await openStore(cli);
    const totals = await repairTemplate(cli, store, template, outcome.damage, trustedKeys(cli));
    const after = await verifyTemplate(cli, template, revision);
    const fetched = formatBytes(totals.transferred);
    return report(cli, { ...after, repaired: outcome.damage, fetchedBytes: totals.transferred }, (found) =>
      found.damage.length > 0
        ? describeLocal(found)
        : `Repaired ${count(outcome.damage.length, "file")} of ${template}, ${fetched} fetched.\n`,
    );
  },
};

function report<T extends VerifyOutcome | RemoteVerifyOutcome>(
  cli: Cli,
  outcome: T,
  text: (outcome: T) => string,
): number {
  cli.print(outcome, () => text(outcome));
  return outcome.damage.length > 0 ? 1 : 0;
}

function describeLocal({ template, revisions, files, bytes, damage, durationMs }: VerifyOutcome): string {
  if (damage.length === 0) {
    const what = `${count(revisions, "revision")}, ${files} files, ${formatBytes(bytes)}`;
    return `${template} is whole: ${what}, in ${formatMs(durationMs)}.\n`;
  }
  return `${damage.map(describeDamage).join("\n")}\nMend it: mvmctl template verify ${template} --repair, or build it again with --force\n`;
}

/** Enough to see where it is. */
const SHOWN_CHUNKS = 8;

function describeDamage({ path, reason, chunks }: Damage): string {
  if (!chunks) return `damaged: ${path}: ${reason}`;
  const shown = chunks.slice(0, SHOWN_CHUNKS).join(", ");
  const more = chunks.length > SHOWN_CHUNKS ? ` and ${chunks.length - SHOWN_CHUNKS} more` : "";
  return `damaged: ${path}: ${chunks.length === 1 ? "chunk" : "chunks"} ${shown}${more}: ${reason}`;
}

function describeRemote({
  template,
  revisions,
  tags,
  blobs,
  chunks,
  bytes,
  damage,
  durationMs,
}: RemoteVerifyOutcome): string {
  if (damage.length === 0) {
    const what = [
      count(revisions, "revision"),
      count(tags, "tag"),
      `${count(blobs, "blob")} with ${count(chunks, "chunk")}`,
      formatBytes(bytes),
    ];
    return `${template} is whole in the registry: ${what.join(", ")}, in ${formatMs(durationMs)}.\n`;
  }
  const lines = damage.map(({ object, reason, revision }) => {
    const of = revision ? ` (revision ${shortRevision(revision)})` : "";
    return `damaged: ${object}${of}: ${reason}`;
  });
  return `${lines.join("\n")}\nMend it: push the template again from a machine that has it whole\n`;
}

function count(number: number, what: string): string {
  return number === 1 ? `1 ${what}` : `${number} ${what}s`;
}
