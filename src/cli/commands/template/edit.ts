import { parseTemplateName } from "../../../core/names.ts";
import { editTemplate } from "../../../template/edit.ts";
import type { Page } from "../../page.ts";
import { defineSettings, parseSettings } from "./settings.ts";

export const page: Page = {
  summary: "Change a template's settings",
  description: "The current revision keeps its settings until the next build.",
  define: (command) => defineSettings(command.argument("<name>")),
  examples: ["mvmctl template edit my-service --mem 2048 --cpus 4"],
  json: true,
  async run(cli, [text = ""], options) {
    const name = parseTemplateName(text);
    const { spec, pendingChanges } = await editTemplate(cli, name, parseSettings(options), cli.cwd);
    cli.print({ spec, pendingChanges }, () => {
      if (pendingChanges.length === 0) return `Changed ${name}.\n`;
      const list = pendingChanges.map((change) => `  ${change}\n`).join("");
      return `Changed ${name}. Until it is built again, its current revision has other settings:\n${list}Build it: mvmctl template build ${name} --snapshot\n`;
    });
  },
};
