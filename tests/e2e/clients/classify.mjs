// Answer texts with transformers.js from a local folder, a line for each DTYPE:
//   node classify.mjs FOLDER DTYPE ... < texts.json > answers.json
import { readFileSync } from "node:fs";
import { basename, dirname, resolve } from "node:path";
import { env, pipeline } from "@huggingface/transformers";

const [folder, ...dtypes] = process.argv.slice(2);
const texts = JSON.parse(readFileSync(0, "utf-8"));
env.allowRemoteModels = false;
env.localModelPath = dirname(resolve(folder));
for (const dtype of dtypes) {
  const classify = await pipeline("text-classification", basename(folder), { dtype, device: "cpu" });
  const answers = [];
  for (const text of texts) {
    const [{ label, score }] = await classify(text);
    answers.push([label, score]);
  }
  console.log(JSON.stringify(answers));
}
