import { shortRevision } from "../../../core/names.ts";
import { formatBytes } from "../../../core/sizes.ts";
import { type CollectOutcome, collectGarbage, parseDuration } from "../../../registry/collect.ts";
import { openStore } from "../../../registry/settings.ts";
import { UsageError } from "../../errors.ts";
import { flag, type Page, textOption } from "../../page.ts";

const DEFAULT_GRACE = "24h";

export const page: Page = {
  summary: "Remove what no template of the registry uses",
  description:
    "Safe while others push and pull: what is younger than the grace time stays, and so does what a push that is under way relies on.",
  define: (command) =>
    command
      .option("--dry-run", "only say what would be removed")
      .option("--untagged", "also remove revisions that no tag names")
      .option(
        "--keep <count>",
        "with --untagged: keep so many of each template, those that were pushed last (default 0)",
      )
      .option("--grace <time>", `leave alone what is younger (default ${DEFAULT_GRACE})`),
  examples: [
    "mvmctl registry gc --dry-run",
    "mvmctl registry gc --grace 7d",
    "mvmctl registry gc --untagged --keep 3 --dry-run",
  ],
  json: true,
  async run(cli, _args, options) {
    const graceMs = parseDuration(textOption(options, "grace") ?? DEFAULT_GRACE);
    const keep = parseKeep(textOption(options, "keep"), flag(options, "untagged"));
    const store = await openStore(cli);
    cli.report({ kind: "step", text: `Looking at ${store.description}` });
    const outcome = await collectGarbage(cli, store, {
      dryRun: flag(options, "dryRun"),
      graceMs,
      ...(keep === undefined ? {} : { untagged: { keep } }),
    });
    cli.print(outcome, () => describe(outcome));
  },
};

/** How many untagged revisions stay; undefined if all do. @throws UsageError */
function parseKeep(text: string | undefined, untagged: boolean): number | undefined {
  if (!untagged && text !== undefined)
    throw new UsageError("--keep says how many untagged revisions stay", "add --untagged");
  if (!untagged) return undefined;
  if (!/^\d{1,6}$/.test(text ?? "0"))
    throw new UsageError(`'${text}' is not a number of revisions`, "write it like --keep 3");
  return Number(text ?? "0");
}

function describe({ removed, bytes, kept, dryRun, revisions }: CollectOutcome): string {
  const verb = dryRun ? "Would remove" : "Removed";
  const names = revisions.map(
    ({ template, revision }) => `${verb} ${template}@${shortRevision(revision)}, which no tag names.\n`,
  );
  const objects = removed.length === 1 ? "1 object" : `${removed.length} objects`;
  const rest =
    removed.length > 0
      ? `${verb} ${objects}, ${formatBytes(bytes)}.\n`
      : `Nothing to remove${names.length > 0 ? " beyond that" : ""}: ${kept === 1 ? "1 blob is" : `${kept} blobs are`} in use or young.\n`;
  return `${names.join("")}${rest}`;
}
