//! The pages that the `type` of a problem leads to, out of docs/problems.md: Markdown for terminals, HTML for browsers.

use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse as _, Response};
use pulldown_cmark::{CowStr, Event, Options, Parser, Tag, TagEnd, html};

use super::accept::preferred;
use super::extract::Path;
use super::problem::{ApiError, Code, OpenErrors};

const DOCUMENT: &str = include_str!("../../docs/problems.md");

const MARKDOWN: &str = "text/markdown";
const HTML: &str = "text/html";
const PROBLEM: &str = "application/problem+json";

/// List the kinds of problems
///
/// Each has a page of its own.
#[utoipa::path(get, path = "/problems", operation_id = "listProblems", tag = "service", security(()),
    params(("Accept" = Option<String>, Header, description = "`text/html` gives a page for browsers"), ("If-None-Match" = Option<String>, Header, description = "An `ETag`; 304 if it still holds")),
    responses((status = 200, description = "The kinds of problems", headers(("ETag" = String)), content((String = "text/markdown"), (String = "text/html"))),
        (status = 304, description = "Not changed"), OpenErrors))]
pub(crate) async fn list(headers: HeaderMap) -> Result<Response, ApiError> {
    let links = sections().map(|(name, _)| format!("* [{name}](/problems/{name})\n"));
    show(&headers, "Problems", &format!("{}\n{}", introduction(), links.collect::<String>()))
}

/// Get the page about a kind of problem
///
/// What it means and what to do about it. The `type` of a problem leads here.
#[utoipa::path(get, path = "/problems/{code}", operation_id = "getProblem", tag = "service", security(()),
    params(("code" = String, Path, description = "As it stands in the `type` of a problem", example = "validation-failed"),
        ("Accept" = Option<String>, Header, description = "`text/html` gives a page for browsers"), ("If-None-Match" = Option<String>, Header, description = "An `ETag`; 304 if it still holds")),
    responses((status = 200, description = "What it means and what to do about it", headers(("ETag" = String)), content((String = "text/markdown"), (String = "text/html"))),
        (status = 304, description = "Not changed"), OpenErrors))]
pub(crate) async fn page(
    Path(code): Path<String>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let Some((name, text)) = sections().find(|(name, _)| *name == code) else {
        let detail = "There is no such kind of problem: `GET /problems` lists them.";
        return Err(ApiError::Because(Code::NotFound, detail.to_owned()));
    };
    show(&headers, name, &format!("# {name}\n{text}"))
}

fn introduction() -> &'static str {
    DOCUMENT.split_once("\n## ").map_or(DOCUMENT, |(introduction, _)| introduction)
}

/// The sections of the document: the name of the problem's kind, and what is said of it.
fn sections() -> impl Iterator<Item = (&'static str, &'static str)> {
    DOCUMENT.split("\n## ").skip(1).filter_map(|section| section.split_once('\n'))
}

fn show(headers: &HeaderMap, title: &str, markdown: &str) -> Result<Response, ApiError> {
    let form = preferred(headers, &[MARKDOWN, HTML]).or_else(|refused| {
        // Clients that generators make ask for the only JSON that is described here.
        preferred(headers, &[PROBLEM]).map(|_| MARKDOWN).map_err(|_| refused)
    })?;
    let text = if form == HTML { html_page(title, markdown) } else { markdown.to_owned() };
    let headers = [
        (header::CONTENT_TYPE, format!("{form}; charset=utf-8")),
        (header::VARY, "accept".to_owned()),
    ];
    Ok((headers, text).into_response())
}

/// A whole page in HTML. It loads nothing, which its content security policy would not let it.
fn html_page(title: &str, markdown: &str) -> String {
    let mut body = String::new();
    html::push_html(&mut body, served(markdown));
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<title>{title}</title>\n</head>\n<body>\n{body}</body>\n</html>\n"
    )
}

/// The document's parts, without links to other documents: those are not served.
fn served(markdown: &str) -> impl Iterator<Item = Event<'_>> {
    let mut is_kept = true;
    Parser::new_ext(markdown, Options::ENABLE_TABLES).filter(move |part| match part {
        Event::Start(Tag::Link { dest_url, .. }) => {
            is_kept = leads_somewhere(dest_url);
            is_kept
        }
        Event::End(TagEnd::Link) => is_kept,
        _ => true,
    })
}

fn leads_somewhere(address: &CowStr<'_>) -> bool {
    address.starts_with("https://") || address.starts_with('/')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_problem_has_a_page_that_says_what_to_do() {
        let names: Vec<_> = sections().map(|(name, _)| name).collect();
        let known: Vec<_> = Code::ALL.iter().map(|code| code.word().replace('_', "-")).collect();

        assert_eq!(names.len(), known.len());
        for name in &known {
            assert!(names.contains(&name.as_str()), "{name} has no page");
        }
        for (name, text) in sections() {
            assert!(text.contains("**What to do:**") && text.contains("Status "), "{name}");
        }
    }

    #[test]
    fn a_page_for_browsers_has_tables_and_links_to_what_is_served_alone() {
        let markdown = "# one\n\nSee [keys](keys.md), [all](/problems) & [more](https://example.com).\n\n| a |\n|---|\n| `b` |\n";

        let page = html_page("one", markdown);

        assert!(page.contains("<title>one</title>") && page.contains("<h1>one</h1>"), "{page}");
        assert!(
            page.contains("See keys, <a href=\"/problems\">all</a> &amp; <a href=\"https://example.com\">more</a>."),
            "{page}"
        );
        assert!(page.contains("<td><code>b</code></td>"), "{page}");
    }
}
