import { parseTemplateName, shortRevision } from "../../../core/names.ts";
import { rollbackTemplate } from "../../../template/rollback.ts";
import type { Page } from "../../page.ts";

export const page: Page = {
  summary: "Make an earlier revision the current one",
  description: "Without a revision: the one that was built before the current one.",
  define: (command) => command.argument("<name>").argument("[revision]", "an id, or its first 4 digits or more"),
  examples: ["mvmctl template rollback my-service", "mvmctl template rollback my-service 3f9c01d2"],
  json: true,
  async run(cli, [name = "", revision]) {
    const { from, to } = await rollbackTemplate(cli, parseTemplateName(name), revision);
    const was = from ? ` (was ${shortRevision(from)})` : "";
    cli.print({ from, to }, () => `${name} is now at revision ${shortRevision(to)}${was}.\n`);
  },
};
