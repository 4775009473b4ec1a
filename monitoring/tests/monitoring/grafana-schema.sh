#!/usr/bin/env bash
# Writes grafana-schema.json, the JSON Schemas of the types of a dashboard, from the TypeScript types
# that Grafana publishes (npm, Apache-2.0). The package has no JSON Schema of its own. Needs node,
# npm and python3; the tests need only the file.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
version=13.2.3
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
npm init -y >/dev/null
npm install --silent "@grafana/schema@$version" ts-json-schema-generator@2.4.0 typescript@5.9.3

# schema NAME PATH TYPE
schema() {
    echo "export type { $3 } from './node_modules/@grafana/schema/dist/types/raw/$2/x/types.gen';" \
        >types.ts
    npx ts-json-schema-generator --path types.ts --type "$3" --no-type-check -o "$1.json"
}
schema dashboard dashboard Dashboard
schema panel dashboard Panel
schema timeseries composable/timeseries/panelcfg Options
schema timeseriesField composable/timeseries/panelcfg FieldConfig
schema stat composable/stat/panelcfg Options
schema heatmap composable/heatmap/panelcfg Options
schema heatmapField composable/heatmap/panelcfg FieldConfig
schema table composable/table/panelcfg Options
schema tableField composable/table/panelcfg FieldConfig

python3 - "$version" >"$here/grafana-schema.json" <<'EOF'
import json, sys

NAMES = ["dashboard", "panel", "timeseries", "timeseriesField", "stat", "heatmap", "heatmapField",
         "table", "tableField"]

def without_texts(value):
    if isinstance(value, dict):
        kept = {name: each for name, each in value.items()
                if name != "description" or not isinstance(each, str)}
        return {name: without_texts(each) for name, each in kept.items()}
    return [without_texts(each) for each in value] if isinstance(value, list) else value

print('{"$comment":"Derived by grafana-schema.sh from the types of @grafana/schema %s, '
      'Copyright Grafana Labs, Apache-2.0; without descriptions",' % sys.argv[1])
for at, name in enumerate(NAMES):
    with open(name + ".json") as file:
        schema = without_texts(json.load(file))
    text = json.dumps(schema, sort_keys=True, separators=(",", ":"))
    print('"%s":%s%s' % (name, text, "," if at + 1 < len(NAMES) else "}"))
EOF
