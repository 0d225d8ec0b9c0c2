// Says what graphql-ws sees, a JSON line for each thing. Arguments: URL, token, cursor.
import { createClient } from "graphql-ws";
import WebSocket from "ws";

const [url, token, cursor] = process.argv.slice(2);
const tell = (what, value) => console.log(JSON.stringify([what, value]));
const FOLLOW = "subscription ($c: String) { tagChanged(after: $c) { operation document { name } } }";

function client(given) {
  return createClient({
    url, webSocketImpl: WebSocket, lazy: false, retryAttempts: 0, keepAlive: 50,
    connectionParams: { authorization: `Bearer ${given}` },
    on: { closed: (event) => tell("closed", event.code) },
    onNonLazyError: () => {},
  });
}

const ask = async (made, query, variables) => {
  for await (const answer of made.iterate({ query, variables })) return answer;
};

const good = client(token);
tell("mutation", (await ask(good, 'mutation { createTag(data: {name: "red"}) { name } }')).data);
const changes = good.iterate({ query: FOLLOW, variables: { c: cursor } });
tell("change", (await changes.next()).value.data);
let pongs = 0;
good.on("pong", () => { if (++pongs === 2) tell("alive", true); });
const next = changes.next();
await ask(good, 'mutation { createTag(data: {name: "blue"}) { name } }');
tell("change", (await next).value.data);
while (pongs < 2) await new Promise((done) => setTimeout(done, 10));
await changes.return();
tell("query", (await ask(good, "{ listTag { data { name } } }")).data);
try {
  await ask(good, "{ nope }");
} catch (errors) {
  tell("error", errors[0].message);
}
await good.dispose();

try {
  const wrong = client("wrong");
  await ask(wrong, "{ listTag { data { name } } }");
} catch (event) {
  tell("refused", event.code);
}
