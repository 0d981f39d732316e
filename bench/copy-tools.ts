import { mkdirSync, readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { run } from "../src/core/process.ts";
import type { S3Options } from "../src/registry/stores/s3.ts";
import { type Measured, measureProcess } from "./measure.ts";

/** A tool that copies the files of a directory to a bucket and back. */
export interface Tool {
  readonly name: string;
  push(place: string): Promise<Measured>;
  pull(place: string): Promise<Measured>;
}

/** Those of rclone, aws and desync that are here. `files` is what they copy, `work` is where they may write. */
export async function compareTools(s3: S3Options, files: string, work: string): Promise<Tool[]> {
  const credentials = await s3.credentials();
  const { accessKeyId, secretAccessKey } = credentials;
  const endpoint = s3.endpoint.origin;
  const back = join(work, "back");
  /** A run that begins with an empty directory to copy back to. */
  const timed = async (command: string, args: string[], env: NodeJS.ProcessEnv) => {
    rmSync(back, { recursive: true, force: true });
    mkdirSync(back);
    // The server speaks plain HTTP; some of the tools refuse to start with a bundle of authorities.
    return await measureProcess(command, args, { ...process.env, AWS_CA_BUNDLE: undefined, ...env });
  };
  const rclone = {
    RCLONE_CONFIG_S_TYPE: "s3",
    RCLONE_CONFIG_S_PROVIDER: "Other",
    RCLONE_CONFIG_S_ENDPOINT: endpoint,
    RCLONE_CONFIG_S_ACCESS_KEY_ID: accessKeyId,
    RCLONE_CONFIG_S_SECRET_ACCESS_KEY: secretAccessKey,
    RCLONE_CONFIG: "/dev/null",
  };
  const aws = { AWS_ACCESS_KEY_ID: accessKeyId, AWS_SECRET_ACCESS_KEY: secretAccessKey, AWS_DEFAULT_REGION: s3.region };
  const desync = { S3_ACCESS_KEY: accessKeyId, S3_SECRET_KEY: secretAccessKey, S3_REGION: s3.region };
  const names = readdirSync(files);
  const chunkStore = (place: string) => `s3+${endpoint}/${s3.bucket}/${place}`;
  const each = (line: (name: string) => string) => ["-ec", names.map(line).join("\n")];
  const all: Tool[] = [
    {
      name: "rclone",
      push: (place) => timed("rclone", ["copy", files, `s:${s3.bucket}/${place}`], rclone),
      pull: (place) => timed("rclone", ["copy", `s:${s3.bucket}/${place}`, back], rclone),
    },
    {
      name: "aws",
      push: (place) =>
        timed(
          "aws",
          ["--endpoint-url", endpoint, "s3", "cp", "--quiet", "--recursive", files, `s3://${s3.bucket}/${place}`],
          aws,
        ),
      pull: (place) =>
        timed(
          "aws",
          ["--endpoint-url", endpoint, "s3", "cp", "--quiet", "--recursive", `s3://${s3.bucket}/${place}`, back],
          aws,
        ),
    },
    {
      name: "desync",
      push: (place) =>
        timed(
          "sh",
          each((name) => `desync make -s "${chunkStore(place)}" ${work}/${place}-${name}.caibx ${files}/${name}`),
          desync,
        ),
      pull: (place) =>
        timed(
          "sh",
          each((name) => `desync extract -s "${chunkStore(place)}" ${work}/${place}-${name}.caibx ${back}/${name}`),
          desync,
        ),
    },
  ];
  const here = await Promise.all(all.map(({ name }) => run("sh", ["-c", `command -v ${name}`])));
  return all.filter((_, index) => here[index]!.exitCode === 0);
}
