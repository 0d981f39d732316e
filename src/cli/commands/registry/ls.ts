import { listRemoteTemplates } from "../../../registry/catalogue.ts";
import { openStore } from "../../../registry/settings.ts";
import type { Page } from "../../page.ts";
import { ago, table } from "../../table.ts";

export const page: Page = {
  summary: "List the templates of the registry",
  define: () => {},
  examples: ["mvmctl registry ls", "mvmctl registry ls --json"],
  json: true,
  async run(cli) {
    const store = await openStore(cli);
    const templates = await listRemoteTemplates(cli, store);
    cli.print(templates, () => {
      if (templates.length === 0) return `${store.description} has no templates yet: mvmctl template push NAME\n`;
      return table([
        ["NAME", "TAGS", "REVISIONS", "SNAPSHOTS", "CHANGED"],
        ...templates.map(({ name, tags, revisions, snapshots, changedAt }) => [
          name,
          tags.join(", ") || "none",
          String(revisions),
          String(snapshots),
          ago(changedAt),
        ]),
      ]);
    });
  },
};
