import { formatBytes } from "../../../core/sizes.ts";
import { collectGarbage, parseDuration } from "../../../registry/collect.ts";
import { openStore } from "../../../registry/settings.ts";
import { flag, type Page, textOption } from "../../page.ts";

const DEFAULT_GRACE = "24h";

export const page: Page = {
  summary: "Remove what no template of the registry uses",
  description:
    "Safe while others push and pull: what is younger than the grace time stays, and so does what a push that is under way relies on.",
  define: (command) =>
    command
      .option("--dry-run", "only say what would be removed")
      .option("--grace <time>", `leave alone what is younger (default ${DEFAULT_GRACE})`),
  examples: ["mvmctl registry gc --dry-run", "mvmctl registry gc --grace 7d"],
  json: true,
  async run(cli, _args, options) {
    const graceMs = parseDuration(textOption(options, "grace") ?? DEFAULT_GRACE);
    const store = await openStore(cli);
    cli.report({ kind: "step", text: `Looking at ${store.description}` });
    const outcome = await collectGarbage(cli, store, { dryRun: flag(options, "dryRun"), graceMs });
    cli.print(outcome, () => {
      const { removed, bytes, kept, dryRun } = outcome;
      const objects = removed.length === 1 ? "1 object" : `${removed.length} objects`;
      if (removed.length === 0)
        return `Nothing to remove: ${kept === 1 ? "1 blob is" : `${kept} blobs are`} in use or young.\n`;
      return `${dryRun ? "Would remove" : "Removed"} ${objects}, ${formatBytes(bytes)}.\n`;
    });
  },
};
