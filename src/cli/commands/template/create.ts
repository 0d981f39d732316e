import { parseTemplateName } from "../../../core/names.ts";
import { createTemplate } from "../../../template/create.ts";
import { TEMPLATE_DEFAULTS } from "../../../template/spec.ts";
import type { Page } from "../../page.ts";
import { defineSettings, parseSettings } from "./settings.ts";

export const page: Page = {
  summary: "Register a flake as a template",
  define: (command) => defineSettings(command.argument("<name>"), TEMPLATE_DEFAULTS),
  examples: [
    "mvmctl template create my-service",
    "mvmctl template create big --flake ../services --profile api --cpus 4 --mem 4096",
  ],
  json: true,
  async run(cli, [name = ""], options) {
    const settings = { ...TEMPLATE_DEFAULTS, ...parseSettings(options) };
    const spec = createTemplate(cli, parseTemplateName(name), settings, cli.cwd);
    cli.print(
      spec,
      () =>
        `Created template ${spec.name} from ${spec.flake}.\nBuild it: mvmctl template build ${spec.name} --snapshot\n`,
    );
  },
};
