// A receiver of certwright's webhooks: `npm install standardwebhooks typescript @types/node`, then
//
//     npx tsc --module nodenext receiver.ts && WEBHOOK_SECRET=whsec_… PORT=8000 node receiver.js

import { createServer } from "node:http";
import { Webhook } from "standardwebhooks";

interface Message {
  type: string;
  timestamp: string;
  data: { name?: string };
}

const webhook = new Webhook(process.env.WEBHOOK_SECRET ?? "");
const seen = new Set<string>(); // keep this where it survives a restart

const server = createServer(async (request, response) => {
  // The signature is over the body as it came: read it before anything parses it.
  const chunks: Buffer[] = [];
  for await (const chunk of request) chunks.push(chunk as Buffer);
  let message: Message;
  try {
    const headers = request.headers as Record<string, string>;
    message = webhook.verify(Buffer.concat(chunks), headers) as Message;
  } catch (error) {
    response.writeHead(401).end(String(error));
    return;
  }
  const id = String(request.headers["webhook-id"]);
  if (!seen.has(id)) {
    seen.add(id); // a repeat is no news
    console.log(message.type, message.data.name ?? "");
  }
  response.writeHead(204).end();
});

server.listen(Number(process.env.PORT), "127.0.0.1");
