import { deleteRemote } from "../../../registry/catalogue.ts";
import { parseReference } from "../../../registry/keys.ts";
import { openStore } from "../../../registry/settings.ts";
import { confirm } from "../../confirm.ts";
import { flag, type Page } from "../../page.ts";

export const page: Page = {
  summary: "Remove a template, a tag or a revision from the registry",
  description: "What it alone used is removed by the next `mvmctl registry gc`.",
  define: (command) => command.argument("<name[:tag|@revision]>").option("-y, --yes", "do not ask"),
  examples: [
    "mvmctl registry delete my-service:v1.2",
    "mvmctl registry delete my-service@3f9c01d2",
    "mvmctl registry delete my-service --yes",
  ],
  json: true,
  async run(cli, [text = ""], options) {
    const { template, tag, revision } = parseReference(text);
    const part = tag !== undefined ? { tag } : revision !== undefined ? { revision } : undefined;
    const store = await openStore(cli);
    if (!part && !flag(options, "yes"))
      await confirm(cli, `Delete template ${template} with all its tags and revisions from ${store.description}?`);
    const { removed } = await deleteRemote(cli, store, template, part);
    cli.print({ deleted: text, objects: removed }, () => `Deleted ${text} from ${store.description}.\n`);
  },
};
