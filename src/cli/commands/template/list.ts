import { shortRevision } from "../../../core/names.ts";
import { listTemplates } from "../../../template/store.ts";
import type { Page } from "../../page.ts";
import { table } from "../../table.ts";

export const page: Page = {
  summary: "List templates",
  define: () => {},
  examples: ["mvmctl template list", "mvmctl template list --json"],
  json: true,
  async run(cli) {
    const templates = listTemplates(cli.paths);
    cli.print(templates, () => {
      if (templates.length === 0)
        return "There are no templates yet. Make one: mvmctl template init my-service --local\n";
      const rows = templates.map((entry) =>
        entry.state === "broken"
          ? [entry.name, "damaged", "", "", entry.reason]
          : [
              entry.name,
              entry.current ? shortRevision(entry.current) : "not built",
              entry.snapshots.length > 0 ? "yes" : "no",
              `${entry.spec.cpus} CPU, ${entry.spec.memMiB} MiB`,
              entry.spec.flake,
            ],
      );
      return table([["NAME", "REVISION", "SNAPSHOT", "SIZE", "FLAKE"], ...rows]);
    });
  },
};
