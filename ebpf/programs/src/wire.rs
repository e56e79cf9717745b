//! A frame as XDP sees it: bytes between two pointers, of which the verifier wants to see each checked.

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::helpers::generated::bpf_xdp_get_buff_len;
use aya_ebpf::programs::XdpContext;
use mc_ebpf_abi::frame;

/// The part of the frame that lies in one piece.
#[derive(Clone, Copy)]
pub(crate) struct Frame {
    context: *mut xdp_md,
    start: usize,
    end: usize,
}

/// Bytes that were checked to be there.
#[derive(Clone, Copy)]
pub(crate) struct Window(*const u8);

/// What the verifier is told no offset exceeds: longer than any chain of headers that is read.
const FURTHEST: usize = 0x7fff;

impl Frame {
    #[inline(always)]
    pub(crate) fn new(context: &XdpContext) -> Self {
        Self { context: context.ctx, start: context.data(), end: context.data_end() }
    }

    /// How long the part is that lies in one piece, which is the whole but for very long frames.
    #[inline(always)]
    pub(crate) fn linear(&self) -> usize {
        self.end - self.start
    }
}

impl frame::Frame for Frame {
    type Window = Window;

    #[inline(always)]
    fn window<const N: usize>(&self, at: usize) -> Option<Window> {
        if at > FURTHEST {
            return None;
        }
        let start = self.start + at;
        (start + N <= self.end).then_some(Window(start as *const u8))
    }

    #[inline(always)]
    fn reaches(&self, end: usize) -> bool {
        // SAFETY: the context is the kernel's.
        end <= self.linear() || end <= unsafe { bpf_xdp_get_buff_len(self.context) } as usize
    }
}

impl frame::Window for Window {
    #[inline(always)]
    fn u8<const AT: usize>(&self) -> u8 {
        // SAFETY: within what `window` has checked, as the trait demands; so below.
        unsafe { *self.0.add(AT) }
    }

    #[inline(always)]
    fn u16<const AT: usize>(&self) -> u16 {
        // SAFETY: see above. Where headers are not aligned the kernel of this machine reads them all the same.
        u16::from_be(unsafe { *self.0.add(AT).cast::<u16>() })
    }

    #[inline(always)]
    fn u32<const AT: usize>(&self) -> u32 {
        // SAFETY: see above.
        u32::from_be(unsafe { *self.0.add(AT).cast::<u32>() })
    }
}
