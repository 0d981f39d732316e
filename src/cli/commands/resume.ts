import { parseInstanceName } from "../../core/names.ts";
import { resumeInstance } from "../../instance/pause.ts";
import type { Page } from "../page.ts";

export const page: Page = {
  summary: "Let a paused instance run on",
  description: "It goes on where `pause` stopped it.",
  define: (command) => command.argument("<name>"),
  examples: ["mvmctl resume svc"],
  json: true,
  async run(cli, [text = ""]) {
    const name = parseInstanceName(text);
    await resumeInstance(cli, name);
    cli.print({ resumed: name }, () => `${name} runs on.\n`);
  },
};
