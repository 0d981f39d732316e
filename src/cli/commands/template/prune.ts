import { parseTemplateName, shortRevision } from "../../../core/names.ts";
import { formatBytes } from "../../../core/sizes.ts";
import { revisionsOfInstances } from "../../../instance/list.ts";
import { type PrunedRevision, pruneTemplate } from "../../../template/prune.ts";
import { templateNames } from "../../../template/store.ts";
import { UsageError } from "../../errors.ts";
import { flag, type Page, textOption } from "../../page.ts";

/** So that `rollback` has one to go back to. */
const DEFAULT_KEEP = "1";

export const page: Page = {
  summary: "Remove old revisions, to free space",
  description:
    "Of one template, or of all. The current revision stays, those of instances, running or not, and the newest of the others.",
  define: (command) =>
    command
      .argument("[name]")
      .option("--keep <n>", `how many of the others stay (default ${DEFAULT_KEEP})`)
      .option("--dry-run", "only say what would be removed"),
  examples: ["mvmctl template prune --dry-run", "mvmctl template prune my-service --keep 0"],
  json: true,
  async run(cli, [text], options) {
    const keep = textOption(options, "keep") ?? DEFAULT_KEEP;
    if (!/^\d{1,6}$/.test(keep))
      throw new UsageError(`--keep '${keep}' is not a number of revisions`, "write --keep 3");
    const dryRun = flag(options, "dryRun");
    const names = text === undefined ? templateNames(cli.paths) : [parseTemplateName(text)];
    const removed: PrunedRevision[] = [];
    for (const name of names) {
      const revisionsInUse = () => revisionsOfInstances(cli, name);
      removed.push(...(await pruneTemplate(cli, name, { keep: Number(keep), dryRun, revisionsInUse })));
    }
    const bytes = removed.reduce((sum, pruned) => sum + pruned.bytes, 0);
    cli.print({ dryRun, bytes, removed }, () => describe(removed, bytes, dryRun));
  },
};

function describe(removed: readonly PrunedRevision[], bytes: number, dryRun: boolean): string {
  if (removed.length === 0) return "Nothing to remove: every revision is current, in use or kept.\n";
  const list = removed.map(
    (pruned) => `  ${pruned.template} ${shortRevision(pruned.revision)}  ${formatBytes(pruned.bytes)}\n`,
  );
  const revisions = removed.length === 1 ? "1 revision" : `${removed.length} revisions`;
  return `${dryRun ? "Would remove" : "Removed"} ${revisions}, ${formatBytes(bytes)}:\n${list.join("")}`;
}
