import { parseTemplateName } from "../../../core/names.ts";
import { runningInstancesOf } from "../../../instance/list.ts";
import { deleteTemplate } from "../../../template/delete.ts";
import { confirm } from "../../confirm.ts";
import { flag, type Page } from "../../page.ts";

export const page: Page = {
  summary: "Delete a template and its revisions",
  description: "Refused while instances run from it.",
  define: (command) => command.argument("<name>").option("-y, --yes", "do not ask"),
  examples: ["mvmctl template delete my-service --yes"],
  json: true,
  async run(cli, [text = ""], options) {
    const name = parseTemplateName(text);
    if (!flag(options, "yes")) await confirm(cli, `Delete template ${name} with all its revisions and snapshots?`);
    await deleteTemplate(cli, name, { instancesOf: (template) => runningInstancesOf(cli, template) });
    cli.print({ deleted: name }, () => `Deleted template ${name}.\n`);
  },
};
