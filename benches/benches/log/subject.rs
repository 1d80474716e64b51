//! The loggers: how each is set up in its asynchronous mode, losing nothing, and how it is brought to its end.

use std::path::Path;

/// A logger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Subject {
    Asynclog,
    #[cfg(feature = "log-peers")]
    TracingAppender,
    #[cfg(feature = "log-peers")]
    FlexiLogger,
    #[cfg(feature = "log-peers")]
    FastLog,
    #[cfg(feature = "log-peers")]
    Ftlog,
    #[cfg(feature = "log-peers")]
    SpdlogRs,
    #[cfg(feature = "log-peers")]
    Logforth,
}

/// Ends a logger, when it is called: everything is then on its way to the file.
pub(crate) type End = Box<dyn FnOnce()>;

type Failure = Box<dyn std::error::Error>;

impl Subject {
    /// Ours first.
    pub(crate) fn all() -> Vec<Self> {
        vec![
            Self::Asynclog,
            #[cfg(feature = "log-peers")]
            Self::TracingAppender,
            #[cfg(feature = "log-peers")]
            Self::FlexiLogger,
            #[cfg(feature = "log-peers")]
            Self::FastLog,
            #[cfg(feature = "log-peers")]
            Self::Ftlog,
            #[cfg(feature = "log-peers")]
            Self::SpdlogRs,
            #[cfg(feature = "log-peers")]
            Self::Logforth,
        ]
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Asynclog => "asynclog",
            #[cfg(feature = "log-peers")]
            Self::TracingAppender => "tracing-appender",
            #[cfg(feature = "log-peers")]
            Self::FlexiLogger => "flexi_logger",
            #[cfg(feature = "log-peers")]
            Self::FastLog => "fast_log",
            #[cfg(feature = "log-peers")]
            Self::Ftlog => "ftlog",
            #[cfg(feature = "log-peers")]
            Self::SpdlogRs => "spdlog-rs",
            #[cfg(feature = "log-peers")]
            Self::Logforth => "logforth",
        }
    }

    /// Starts the logger of this process, with one file in `folder`.
    pub(crate) fn start(self, folder: &Path) -> Result<End, Failure> {
        let file = folder.join("a.log");
        match self {
            Self::Asynclog => {
                let overflow = asynclog::Overflow::Block { at_most: std::time::Duration::from_secs(60) };
                let guard = asynclog::Builder::new().file(file).overflow(overflow).install()?;
                Ok(Box::new(move || drop(guard)))
            }
            #[cfg(feature = "log-peers")]
            peer => peers::start(peer, &file, folder),
        }
    }

    /// Logs a record: the same text, and of the same kinds of values, whatever the logger.
    #[inline]
    pub(crate) fn log(self, n: u64) {
        match self {
            #[cfg(feature = "log-peers")]
            Self::TracingAppender => {
                tracing::info!("conversation {} has {} members after {} us", n, n & 63, n % 977);
            }
            #[cfg(feature = "log-peers")]
            Self::SpdlogRs => {
                spdlog::info!("conversation {} has {} members after {} us", n, n & 63, n % 977);
            }
            _ => log::info!("conversation {} has {} members after {} us", n, n & 63, n % 977),
        }
    }
}

#[cfg(feature = "log-peers")]
mod peers {
    //! Where a peer has the choice, it waits for room and loses nothing; its line has time, level, place and message.

    use std::fs::File;
    use std::path::Path;
    use std::sync::Arc;

    use super::{End, Failure, Subject};

    /// The waiting records of those whose queue is bounded by a number and has no default that is.
    const QUEUE_RECORDS: usize = 100_000;

    pub(super) fn start(peer: Subject, file: &Path, folder: &Path) -> Result<End, Failure> {
        match peer {
            Subject::Asynclog => Err("it is no peer".into()),
            Subject::TracingAppender => tracing_appender(file),
            Subject::FlexiLogger => flexi_logger(file),
            Subject::FastLog => fast_log(file),
            Subject::Ftlog => ftlog(file),
            Subject::SpdlogRs => spdlog(file),
            Subject::Logforth => logforth(folder),
        }
    }

    fn tracing_appender(file: &Path) -> Result<End, Failure> {
        let builder = tracing_appender::non_blocking::NonBlockingBuilder::default().lossy(false);
        let (writer, guard) = builder.finish(File::create(file)?);
        tracing_subscriber::fmt()
            .with_writer(writer)
            .with_ansi(false)
            .with_file(true)
            .with_line_number(true)
            .with_thread_names(true)
            .try_init()
            .map_err(|error| error.to_string())?;
        Ok(Box::new(move || drop(guard)))
    }

    fn flexi_logger(file: &Path) -> Result<End, Failure> {
        let handle = flexi_logger::Logger::try_with_str("info")?
            .log_to_file(flexi_logger::FileSpec::try_from(file)?)
            .format(flexi_logger::opt_format)
            .write_mode(flexi_logger::WriteMode::Async)
            .start()?;
        Ok(Box::new(move || handle.shutdown()))
    }

    fn fast_log(file: &Path) -> Result<End, Failure> {
        let name = file.to_string_lossy();
        let config = fast_log::Config::new().file(&name).chan_len(Some(QUEUE_RECORDS));
        fast_log::init(config).map_err(|error| error.to_string())?;
        Ok(Box::new(|| {
            if let Ok(done) = fast_log::flush() {
                done.wait();
            }
        }))
    }

    fn ftlog(file: &Path) -> Result<End, Failure> {
        let guard = ftlog::builder()
            .bounded(QUEUE_RECORDS, true)
            .utc()
            .root(ftlog::appender::FileAppender::new(file))
            .try_init()?;
        Ok(Box::new(move || drop(guard)))
    }

    fn spdlog(file: &Path) -> Result<End, Failure> {
        let sink = spdlog::sink::FileSink::builder().path(file).truncate(true).build_arc()?;
        let pool = spdlog::sink::AsyncPoolSink::builder().sink(sink).build_arc()?;
        let logger = spdlog::Logger::builder().sink(pool).build_arc()?;
        spdlog::set_default_logger(Arc::clone(&logger));
        Ok(Box::new(move || logger.flush()))
    }

    fn logforth(folder: &Path) -> Result<End, Failure> {
        let file = logforth::append::file::FileBuilder::new(folder, "a").filename_suffix("log").build();
        let file = file.map_err(|error| error.to_string())?;
        let appender = logforth::append::asynchronous::AsyncBuilder::new("log")
            .buffered_lines_limit(Some(QUEUE_RECORDS))
            .overflow_block()
            .append(file)
            .build();
        logforth::starter_log::builder().dispatch(|dispatch| dispatch.append(appender)).apply();
        log::set_max_level(log::LevelFilter::Info);
        Ok(Box::new(|| log::logger().flush()))
    }
}
