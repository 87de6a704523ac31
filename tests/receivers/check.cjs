// Verifies recorded messages, each as of the moment in which it was sent, with the library from npm.
//
//     node check.cjs SECRET FILE    one JSON object a line: {"headers": {…}, "body": "…"}; prints how many are good

const { readFileSync } = require("node:fs");
const { Webhook } = require(`${process.env.NODE_MODULES}/standardwebhooks`);

const webhook = new Webhook(process.argv[2]);
const lines = readFileSync(process.argv[3], "utf-8").split("\n").filter(Boolean);
for (const line of lines) {
  const { headers, body } = JSON.parse(line);
  Date.now = () => Number(headers["webhook-timestamp"]) * 1000;
  webhook.verify(body, headers);
}
console.log(lines.length);
