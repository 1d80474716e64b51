//! Writes the Rust of one service.

use std::fmt::Write as _;

use prost_build::{Comments, Method, Service, ServiceGenerator};

/// The levels of `google.protobuf.MethodOptions.IdempotencyLevel`.
const NO_SIDE_EFFECTS: i32 = 1;
const IDEMPOTENT: i32 = 2;

pub(crate) struct Generator {
    /// The file in `OUT_DIR` with the descriptors.
    descriptors: String,
}

impl Generator {
    pub(crate) const fn new(descriptors: String) -> Self {
        Self { descriptors }
    }

    fn info(&self, service: &Service, out: &mut String) {
        let (name, upper) = (&service.name, constant(&service.name));
        let full = full_name(service);
        let mut methods = String::new();
        for method in &service.methods {
            let level = match method.options.idempotency_level {
                Some(NO_SIDE_EFFECTS) => "NoSideEffects",
                Some(IDEMPOTENT) => "Idempotent",
                _ => "Unknown",
            };
            let path = format!("{full}/{}", method.proto_name);
            let _ =
                write!(methods, "::rpc::MethodInfo::new(\"{path}\", ::rpc::Idempotency::{level}),\n        ");
        }
        let _ = write!(
            out,
            "/// The methods of `{name}`, with their ids, and its descriptors.
pub static {upper}: ::rpc::ServiceInfo = ::rpc::ServiceInfo {{
    name: \"{full}\",
    methods: &[
        {methods}
    ],
    descriptors: include_bytes!(concat!(env!(\"OUT_DIR\"), \"/{descriptors}\")),
}};
",
            descriptors = self.descriptors
        );
    }
}

impl ServiceGenerator for Generator {
    fn generate(&mut self, service: Service, out: &mut String) {
        self.info(&service, out);
        server(&service, out);
        blocking(&service, out);
        client(&service, out);
        mock(&service, out);
    }
}

/// The trait whose methods run on a loop.
fn server(service: &Service, out: &mut String) {
    let name = &service.name;
    let (mut methods, mut arms) = (String::new(), String::new());
    for (index, method) in service.methods.iter().enumerate() {
        let Method { name: fun, input_type, output_type, .. } = method;
        methods.push_str(&docs(&method.comments, "    "));
        let _ = writeln!(
            methods,
            "    fn {fun}(&self, cx: ::rpc::CallContext, request: {input_type}, reply: ::rpc::Reply<{output_type}>);"
        );
        let _ = writeln!(
            arms,
            "            {index} => {{ ::rpc::serve::unary(cx, body, reply, |cx, request, reply| self.0.{fun}(cx, request, reply)); }}"
        );
    }
    let docs = docs(&service.comments, "");
    let _ = write!(
        out,
        "{docs}///
/// Runs on a loop: a method must not block. It answers through its reply, now or later, from any thread; a reply that is dropped without an answer
/// becomes an error.
pub trait {name}: Send + Sync + 'static {{
{methods}}}
"
    );
    implement(service, &format!("{name}Server"), name, &arms, "(pub T)", out);
}

/// The trait whose methods run on workers.
fn blocking(service: &Service, out: &mut String) {
    let name = &service.name;
    let (mut methods, mut arms) = (String::new(), String::new());
    for (index, method) in service.methods.iter().enumerate() {
        let Method { name: fun, input_type, output_type, .. } = method;
        methods.push_str(&docs(&method.comments, "    "));
        methods.push_str("    ///\n    /// # Errors\n    /// What the caller is to be told.\n");
        let _ = writeln!(
            methods,
            "    fn {fun}(&self, cx: &::rpc::CallContext, request: {input_type}) -> ::core::result::Result<{output_type}, ::rpc::Status>;"
        );
        let _ = writeln!(
            arms,
            "            {index} => {{ ::rpc::serve::blocking(&self.workers, &self.inner, cx, body, reply, |inner, cx, request| inner.{fun}(cx, request)); }}"
        );
    }
    let docs = docs(&service.comments, "");
    let _ = write!(
        out,
        "{docs}///
/// Runs on workers, where a method may block.
pub trait {name}Blocking: Send + Sync + 'static {{
{methods}}}
"
    );
    let fields = " {\n    inner: ::std::sync::Arc<T>,\n    workers: ::std::sync::Arc<::rpc::Workers>,\n}";
    implement(service, &format!("{name}BlockingServer"), &format!("{name}Blocking"), &arms, fields, out);
    let _ = write!(
        out,
        "impl<T: {name}Blocking> {name}BlockingServer<T> {{
    /// Serves `inner` on `workers`, which other services may share.
    pub fn new(inner: T, workers: ::std::sync::Arc<::rpc::Workers>) -> Self {{
        Self {{ inner: ::std::sync::Arc::new(inner), workers }}
    }}
}}
"
    );
}

/// The struct `server` around a `T` that has the trait `bound`, and how calls reach it.
fn implement(service: &Service, server: &str, bound: &str, arms: &str, fields: &str, out: &mut String) {
    let upper = constant(&service.name);
    let end = if fields.ends_with('}') { "" } else { ";" };
    let _ = write!(
        out,
        "/// Makes a `rpc::Service` of what implements [`{bound}`].
#[derive(Debug)]
pub struct {server}<T>{fields}{end}
impl<T: {bound}> ::rpc::Service for {server}<T> {{
    fn info(&self) -> &'static ::rpc::ServiceInfo {{
        &{upper}
    }}
    fn call(&self, method: usize, cx: ::rpc::CallContext, body: &[u8], reply: ::rpc::RawReply) {{
        match method {{
{arms}            _ => reply.fail(::rpc::Status::unimplemented()),
        }}
    }}
}}
"
    );
}

fn client(service: &Service, out: &mut String) {
    let (name, upper) = (&service.name, constant(&service.name));
    let mut methods = String::new();
    for (index, method) in service.methods.iter().enumerate() {
        let Method { name: fun, input_type, output_type, .. } = method;
        methods.push_str(&docs(&method.comments, "    "));
        let _ = write!(
            methods,
            "    pub fn {fun}(&self, request: &{input_type}) -> ::rpc::Call<{output_type}> {{
        self.channel.call(&{upper}.methods[{index}], request)
    }}\n"
        );
    }
    let _ = write!(
        out,
        "/// Calls `{name}`.
#[derive(Clone, Debug)]
pub struct {name}Client {{
    channel: ::rpc::Channel,
}}
#[allow(clippy::indexing_slicing, reason = \"the table and its indexes were made together\")]
impl {name}Client {{
    /// Calls over `channel`.
    pub fn new(channel: ::rpc::Channel) -> Self {{
        Self {{ channel }}
    }}
{methods}}}
"
    );
}

/// A server made of closures.
fn mock(service: &Service, out: &mut String) {
    let name = &service.name;
    let (mut fields, mut setters, mut methods) = (String::new(), String::new(), String::new());
    for method in &service.methods {
        let Method { name: fun, input_type, output_type, .. } = method;
        let _ = writeln!(fields, "    {fun}: ::rpc::serve::MockMethod<{input_type}, {output_type}>,");
        let _ = write!(
            setters,
            "    /// What `{fun}` answers.
    #[must_use]
    pub fn on_{plain}(mut self, answer: impl Fn({input_type}) -> ::core::result::Result<{output_type}, ::rpc::Status> + Send + Sync + 'static) -> Self {{
        self.{fun} = ::rpc::serve::MockMethod::new(answer);
        self
    }}\n",
            plain = fun.trim_start_matches("r#")
        );
        let _ = write!(
            methods,
            "    fn {fun}(&self, _: ::rpc::CallContext, request: {input_type}, reply: ::rpc::Reply<{output_type}>) {{
        reply.finish(self.{fun}.answer(request));
    }}\n"
        );
    }
    let _ = write!(
        out,
        "/// A `{name}` made of closures, for tests. What was given no answer is not implemented.
#[derive(Debug, Default)]
pub struct Mock{name} {{
{fields}}}
impl Mock{name} {{
    /// One that implements nothing yet.
    pub fn new() -> Self {{
        Self::default()
    }}
{setters}    /// A client of it, without a network.
    pub fn client(self) -> {name}Client {{
        {name}Client::new(::rpc::Channel::local({name}Server(self)))
    }}
}}
impl {name} for Mock{name} {{
{methods}}}
"
    );
}

fn full_name(service: &Service) -> String {
    if service.package.is_empty() {
        service.proto_name.clone()
    } else {
        format!("{}.{}", service.package, service.proto_name)
    }
}

/// `LoginService` as `LOGIN_SERVICE`.
fn constant(name: &str) -> String {
    let mut out = String::new();
    let mut after_lower = false;
    for letter in name.chars() {
        if letter.is_uppercase() && after_lower {
            out.push('_');
        }
        after_lower = letter.is_lowercase() || letter.is_ascii_digit();
        out.extend(letter.to_uppercase());
    }
    out
}

/// The comment that stands before something in the file.
fn docs(comments: &Comments, indent: &str) -> String {
    let mut out = String::new();
    for line in comments.leading.iter().flat_map(|block| block.lines()) {
        let _ =
            writeln!(out, "{indent}///{}{}", if line.starts_with(' ') { "" } else { " " }, line.trim_end());
    }
    if out.is_empty() {
        let _ = writeln!(out, "{indent}/// Made from a `.proto` file.");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_becomes_a_constant() {
        assert_eq!(constant("Echo"), "ECHO");
        assert_eq!(constant("LoginService2"), "LOGIN_SERVICE2");
    }
}
