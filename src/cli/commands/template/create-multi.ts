import { parseLabel } from "../../../core/names.ts";
import { createTemplates } from "../../../template/create.ts";
import { TEMPLATE_DEFAULTS } from "../../../template/spec.ts";
import { type Page, textOption } from "../../page.ts";
import { defineCommonSettings, parseSettings } from "./settings.ts";

export const page: Page = {
  summary: "Register one template for each of several roles",
  description: "Makes BASE-ROLE for every role, or none of them.",
  define: (command) =>
    defineCommonSettings(command.argument("<base>").requiredOption("--roles <a,b,…>", "the roles"), TEMPLATE_DEFAULTS),
  examples: ["mvmctl template create-multi shop --flake . --roles worker,gateway"],
  json: true,
  async run(cli, [base = ""], options) {
    const roles = (textOption(options, "roles") ?? "").split(",").map((text) => parseLabel("role", text.trim()));
    const specs = createTemplates(cli, base, roles, { ...TEMPLATE_DEFAULTS, ...parseSettings(options) }, cli.cwd);
    cli.print(specs, () => specs.map(({ name, flake }) => `Created template ${name} from ${flake}.\n`).join(""));
  },
};
