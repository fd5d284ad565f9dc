// Shows the OpenAPI document of this server. Everything is set as text, never as HTML.

const make = (tag, attributes, ...children) => {
  const element = Object.assign(document.createElement(tag), attributes);
  element.append(...children);
  return element;
};

// `code` between backquotes, paragraphs between empty lines.
const prose = (text) =>
  (text ?? '').split(/\n\s*\n/).filter(Boolean).map((paragraph) => {
    const pieces = paragraph.split('`').map((piece, at) => (at % 2 ? make('code', {}, piece) : piece));
    return make('p', {}, ...pieces);
  });

const typeOf = (schema) => {
  if (!schema || Object.keys(schema).length === 0) return 'any JSON';
  if (schema.$ref) return schema.$ref.split('/').pop();
  const several = schema.oneOf ?? schema.anyOf;
  if (several) return several.map(typeOf).join(' or ');
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(' or ');
  const types = [schema.type ?? 'any JSON'].flat();
  return types.map((type) => (type === 'array' ? `array of ${typeOf(schema.items)}` : type)).join(' or ');
};

const table = (heads, rows) =>
  make('table', {},
    make('thead', {}, make('tr', {}, ...heads.map((head) => make('th', {}, head)))),
    make('tbody', {}, ...rows.map((row) => make('tr', {}, ...row.map((cell) => make('td', {}, ...[cell].flat()))))));

const bodyOf = (holder) => Object.entries(holder?.content ?? {}).map(([type, { schema }]) => `${typeOf(schema)} (${type})`).join(', ');

const operation = (method, path, what) => {
  const parts = [...prose(what.description)];
  if (what.parameters?.length) {
    parts.push(table(['Parameter', 'In', 'Type', ''], what.parameters.map((parameter) =>
      [make('code', {}, parameter.name), parameter.in, typeOf(parameter.schema), prose(parameter.description)])));
  }
  if (what.requestBody) parts.push(make('p', {}, `Body: ${bodyOf(what.requestBody)}`));
  parts.push(table(['Status', 'Body', ''], Object.entries(what.responses).map(([status, response]) =>
    [status, bodyOf(response), prose(response.description)])));
  const title = make('summary', {}, make('span', { className: 'method' }, method.toUpperCase()),
    make('code', {}, path), ` – ${what.summary ?? ''}`);
  return make('details', { id: what.operationId }, title, ...parts);
};

const show = (api) => {
  const page = [make('h1', {}, `${api.info.title} HTTP API`), ...prose(api.info.description)];
  const operations = Object.entries(api.paths).flatMap(([path, item]) =>
    Object.entries(item).map(([method, what]) => ({ method, path, what })));
  for (const tag of api.tags ?? []) {
    page.push(make('h2', {}, tag.name), ...prose(tag.description));
    page.push(...operations.filter(({ what }) => what.tags?.includes(tag.name))
      .map(({ method, path, what }) => operation(method, path, what)));
  }
  page.push(make('h2', {}, 'Types'));
  for (const [name, schema] of Object.entries(api.components?.schemas ?? {})) {
    const rows = Object.entries(schema.properties ?? {}).map(([field, type]) =>
      [make('code', {}, field), typeOf(type), schema.required?.includes(field) ? 'required' : '', prose(type.description)]);
    page.push(make('details', { id: name }, make('summary', {}, make('code', {}, name)), ...prose(schema.description),
      rows.length ? table(['Field', 'Type', '', ''], rows) : make('p', {}, typeOf(schema))));
  }
  document.getElementById('page').replaceChildren(...page);
};

fetch('/openapi.json')
  .then((response) => response.json())
  .then(show)
  .catch((error) => document.getElementById('page').replaceChildren(make('p', {}, `The document cannot be read: ${error}`)));
