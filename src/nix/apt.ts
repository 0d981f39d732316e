import { existsSync, rmSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { sha256File } from "../core/digests.ts";
import { MvmError } from "../core/errors.ts";
import { ensureDirectory, writeFileAtomic } from "../core/files.ts";
import { type RunResult, run } from "../core/process.ts";
import { lastLines } from "../core/text.ts";
import type { LockedFile } from "./debian-lock.ts";

/** Not on the PATH: part of apt, for scripts that want its proxies, certificates and mirrors (apt-helper(1)). */
const APT_HELPER = "/usr/lib/apt/apt-helper";

/**
 * The host's apt, asked as any user: its sources, keys, proxies and package lists are the machine's; its status and
 * caches are ours. The status says that nothing is installed, so that a whole closure is listed.
 */
export class Apt {
  readonly #directory: string;
  readonly #architecture: string;
  readonly #options: { readonly env: NodeJS.ProcessEnv; readonly signal?: AbortSignal };

  /** @param directory for apt's caches and status files */
  constructor(
    directory: string,
    architecture: string,
    options: { readonly env: NodeJS.ProcessEnv; readonly signal?: AbortSignal },
  ) {
    this.#directory = directory;
    this.#architecture = architecture;
    this.#options = options;
    ensureDirectory(join(directory, "archives", "partial"));
  }

  /**
   * A package list's names and all they depend on, without recommendations, and without `excluded` and what only those
   * need.
   * @throws MvmError `DEBIAN_PACKAGE_UNKNOWN`, `DEBIAN_PACKAGES_UNRESOLVED`, `APT_LISTS_MISSING`, `APT_MISSING`
   */
  async resolve(names: readonly string[], excluded: readonly string[] = []): Promise<Map<string, LockedFile>> {
    if (names.length === 0) return new Map();
    const archives = await this.#archives();
    await this.#pretendInstalled(excluded);
    const result = await this.#run("apt-get", [
      "install",
      "--print-uris",
      "-q",
      "-y",
      "--no-install-recommends",
      "--",
      ...names,
    ]);
    if (result.exitCode !== 0) throw unresolved(names, result);
    const files = new Map<string, LockedFile>();
    for (const line of result.stdout.split("\n").filter((line) => line.startsWith("'"))) {
      const file = parseUriLine(line, archives);
      files.set(file.name, file);
    }
    const virtual = names.find((name) => !files.has(name));
    if (virtual) {
      throw new MvmError("DEBIAN_PACKAGE_UNKNOWN", `${virtual} is no package of its own: other packages provide it`, {
        hint: `name one of those that \`apt-cache showpkg ${virtual}\` lists`,
      });
    }
    return files;
  }

  /**
   * Downloads files from the machine's archives into `directory`, under the given names, checked against their SHA-256.
   * Returns the names of those that no archive has any more, and what apt said last.
   */
  async download(
    files: ReadonlyMap<string, LockedFile>,
    directory: string,
  ): Promise<{ gone: string[]; errors: string }> {
    ensureDirectory(directory);
    const missing = new Map(files);
    const archives = await this.#archives();
    let errors = "";
    // The archive of the same name first; a mirror may keep it under another.
    for (const sameName of [true, false]) {
      for (const archive of archives) {
        const chosen = [...missing].filter(([, file]) => (file.archive === archiveName(archive)) === sameName);
        if (chosen.length > 0) errors = await this.#downloadFrom(archive, chosen, directory);
        for (const [name, file] of chosen)
          if (await hasDigest(join(directory, name), file.sha256)) missing.delete(name);
      }
    }
    return { gone: [...missing.keys()], errors };
  }

  async #downloadFrom(
    archive: string,
    files: readonly (readonly [string, LockedFile])[],
    directory: string,
  ): Promise<string> {
    // apt uses files of `file:` archives where they are; `copy:` brings them here.
    const root = archive.replace(/^file:/, "copy:");
    const args = files.flatMap(([name, file]) => [
      `${root}${file.path}`,
      join(directory, name),
      `SHA256:${file.sha256}`,
    ]);
    const result = await this.#run(APT_HELPER, ["download-file", ...args]);
    for (const [name] of files) rmSync(join(directory, `${name}.FAILED`), { force: true });
    return lastLines(result.stderr, 10);
  }

  /** The roots of the machine's package archives, each ending in a slash. */
  async #archives(): Promise<string[]> {
    const result = await this.#run("apt-get", [
      "indextargets",
      "--format",
      "$(REPO_URI) $(FILENAME)",
      "Created-By: Packages",
    ]);
    const targets = result.stdout
      .split("\n")
      .filter(Boolean)
      .map((line) => line.split(" ") as [string, string]);
    if (!targets.some(([, file]) => existsSync(file))) {
      throw new MvmError("APT_LISTS_MISSING", "apt has no package lists on this machine", {
        hint: "run: apt-get update",
      });
    }
    return [...new Set(targets.map(([uri]) => (uri.endsWith("/") ? uri : `${uri}/`)))];
  }

  /** Writes a dpkg status that holds just these packages, in the versions on offer. */
  async #pretendInstalled(names: readonly string[]): Promise<void> {
    writeFileSync(this.#statusFile, "");
    if (names.length === 0) return;
    // Exits with an error if one of the names is unknown: there is nothing to leave out then.
    const { stdout } = await this.#run("apt-cache", ["show", "--no-all-versions", ...names]);
    writeFileAtomic(this.#statusFile, installedStanzas(stdout));
  }

  get #statusFile(): string {
    return join(this.#directory, "status");
  }

  async #run(program: string, args: readonly string[]): Promise<RunResult> {
    const settings = {
      "Dir::State::status": this.#statusFile,
      "Dir::Cache": this.#directory,
      // Container images often switch these off; without them every call reads all package lists again.
      "Dir::Cache::pkgcache": "pkgcache.bin",
      "Dir::Cache::srcpkgcache": "srcpkgcache.bin",
      "Dir::Cache::archives": join(this.#directory, "archives"),
      "APT::Architecture": this.#architecture,
      "Debug::NoLocking": "1",
      // Our cache directory may be closed to apt's own user.
      "APT::Sandbox::User": "root",
      "Acquire::ForceHash": "SHA256",
      "Acquire::Retries": "2",
    };
    const options = Object.entries(settings).flatMap(([key, value]) => ["-o", `${key}=${value}`]);
    try {
      return await run(program, [...options, ...args], {
        ...this.#options,
        env: { ...this.#options.env, LC_ALL: "C", DEBIAN_FRONTEND: "noninteractive" },
      });
    } catch (error) {
      if (!(error instanceof MvmError && error.code === "PROGRAM_MISSING")) throw error;
      throw new MvmError(
        "APT_MISSING",
        `images with hostPkgs are made of Debian packages, and this machine has no ${basename(program)}`,
        {
          hint: "take pkgs from nixpkgs in flake.nix, or build on Debian or Ubuntu",
          cause: error,
        },
      );
    }
  }
}

async function hasDigest(path: string, digest: string): Promise<boolean> {
  return existsSync(path) && (await sha256File(path)) === digest;
}

/**
 * A line of `apt-get --print-uris`: `'URI' FILE SIZE SHA256:DIGEST`.
 * @throws MvmError `DEBIAN_PACKAGES_UNRESOLVED` if there is no SHA-256 in it
 */
export function parseUriLine(line: string, archives: readonly string[]): LockedFile {
  const match = /^'(\S+)' (\S+)_(\S+)_(\S+)\.deb (\d+) SHA256:([0-9a-f]{64})\s*$/.exec(line);
  const archive = match && archives.filter((root) => match[1]!.startsWith(root)).sort((a, b) => b.length - a.length)[0];
  if (!match || !archive) {
    throw new MvmError(
      "DEBIAN_PACKAGES_UNRESOLVED",
      `apt offers a package that can't be locked: ${line.slice(0, 300)}`,
      {
        hint: "take it from an archive whose package lists have SHA-256 digests",
      },
    );
  }
  const [, uri, name, version, architecture, size, sha256] = match as unknown as [
    string,
    string,
    string,
    string,
    string,
    string,
    string,
  ];
  return {
    name,
    version: decodeURIComponent(version), // only the epoch's colon is written as %3a
    architecture,
    size: Number(size),
    sha256,
    archive: archiveName(archive),
    path: uri.slice(archive.length),
  };
}

/** The last directory of an archive's root: mirrors agree on it, their hosts and parent directories differ. */
function archiveName(root: string): string {
  return root.split("/").filter(Boolean).at(-1) ?? root;
}

/**
 * The dpkg status in which the packages that `apt-cache show` describes are installed, without their dependencies. Their
 * versions are a little higher than those on offer, or apt would want to replace them; they provide the real ones.
 */
export function installedStanzas(shown: string): string {
  return shown
    .split(/\n\n+/)
    .map(fieldsOf)
    .filter((fields) => fields.has("Package"))
    .map((fields) => {
      const provided = [fields.get("Provides"), `${fields.get("Package")} (= ${fields.get("Version")})`].filter(
        Boolean,
      );
      const lines = [
        `Package: ${fields.get("Package")}`,
        "Status: install ok installed",
        `Version: ${fields.get("Version")}+excluded`,
        `Architecture: ${fields.get("Architecture")}`,
        ...(fields.has("Multi-Arch") ? [`Multi-Arch: ${fields.get("Multi-Arch")}`] : []),
        `Provides: ${provided.join(", ")}`,
      ];
      return `${lines.join("\n")}\n\n`;
    })
    .join("");
}

/** The one-line fields of a control file's stanza. */
function fieldsOf(stanza: string): Map<string, string> {
  return new Map([...stanza.matchAll(/^([A-Za-z-]+): (.*)$/gm)].map((match) => [match[1]!, match[2]!]));
}

function unresolved(names: readonly string[], result: RunResult): MvmError {
  const unknown = /Unable to locate package (\S+)|Package '?([^\s']+)'? has no installation candidate/.exec(
    result.stderr,
  );
  const name = unknown?.[1] ?? unknown?.[2];
  if (name) {
    return new MvmError("DEBIAN_PACKAGE_UNKNOWN", `the Debian package ${name} is not on offer on this machine`, {
      hint: `look for its name with \`apt-cache search ${name}\`; if the lists are old, run: apt-get update`,
      detail: lastLines(result.stderr, 5),
    });
  }
  return new MvmError("DEBIAN_PACKAGES_UNRESOLVED", `apt can't put these packages together: ${names.join(", ")}`, {
    detail: lastLines(`${result.stdout}\n${result.stderr}`, 15),
    hint: "if the package lists are old, run: apt-get update",
  });
}
