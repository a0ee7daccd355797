// The official client, at the address that the test names.
import OpenAI from "openai";

export const url = process.env.OPENAI_BASE_URL;
export const model = "any";
export const messages = [{ role: "user", content: "What is the capital of France?" }];
export const client = clientOf({ maxRetries: 0 });

export function clientOf(options) {
  return new OpenAI({ baseURL: url, apiKey: "unused", ...options });
}
